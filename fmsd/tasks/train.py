"""Training: adapt a detector, choose its weights on validation data, then test them once on every test dataset."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch import nn

from fmsd.data import manifest as manifests
from fmsd.engine.callbacks import IID, MONITOR, ValidationMetrics
from fmsd.engine.datamodule import DataModule, TrainingBatches
from fmsd.engine.learner import Learner, OptimizerFactory, ScheduleFactory
from fmsd.mask import LayerMask, MaskHistory
from fmsd.models.detector import Detector
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft import adapter
from fmsd.peft.inject import fold
from fmsd.peft.method import Method
from fmsd.report import plots, wandb
from fmsd.report.run import Run, caption, claimed, provenance
from fmsd.tasks.evaluate import made, show, test, tested
from fmsd.types import InputError

log = logging.getLogger(__name__)


def train(
    name: str,
    detector: Callable[[], Detector],
    method: Method,
    wrapper: OptimizerWrapper,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory,
    data: DataModule,
    trainer: Callable[..., Trainer],
    folder: Path,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    logger: Callable[..., Logger] | None = None,
    seed: int = 0,
    weight_decay: float = 0.0,
    accumulate: int = 1,
    clip: float | None = None,
    compiled: bool = False,
) -> Run:
    """Trains, selects and tests; everything that the run found lies in its folder.

    Args:
        name: the method's name, for the table.
        detector, trainer, logger: factories; they are called after the seed is set and the data is checked.
        config: the composed configuration as YAML text.
        command, overrides, choices: what was asked for, for the record.
        compiled: train through `torch.compile`.

    Raises:
        InputError: input that cannot be used; before the first checkpoint nothing of the run is left behind.
    """
    run = Run(folder)
    with claimed(run, config):
        started = time.perf_counter()
        training, tests = data.training, data.tests
        lightning.pytorch.seed_everything(seed, workers=True, verbose=False)
        model = detector()
        parameters, base = count(model.parameters()), adapter.fingerprint(model)
        loggers = [CSVLogger(folder, name="logs", version=""), *([logger(folder)] if logger else [])]
        best = ModelCheckpoint(folder / "checkpoints", filename="best", monitor=MONITOR, mode="max", save_last=True, enable_version_counter=False)
        history = LambdaCallback(on_train_epoch_end=lambda *_: write_history(run, adaptation.history))
        worker = made(trainer, callbacks=[ValidationMetrics(data.validation), best, history], logger=loggers, default_root_dir=folder)

        limit, device = worker.limit_train_batches, worker.strategy.root_device
        batches = TrainingBatches(data, device, worker.precision_plugin.forward_context, limit if isinstance(limit, int) else None)
        adaptation = method(model.to(device), batches)
        model.train()
        write_mask(run, adaptation.mask)
        trainable = count(parameter for parameter in model.parameters() if parameter.requires_grad)
        frames = len(training.where(split="train"))
        learned = f"{trainable:,} of {parameters:,} parameters"
        log.info("Method %s: %s learn on %d frames; %d choose the weights.", name, learned, frames, len(data.validation))
        steps = optimizer_steps(worker, math.ceil(frames / data.batch_size), accumulate)
        learner = Learner(model, wrapper, optimizer, schedule, adaptation, steps, weight_decay, accumulate, clip)
        if compiled:
            model.compile()
        try:
            finished = fit(worker, learner, data)
            if not finished and not best.best_model_path:
                raise KeyboardInterrupt
            chosen = choose(learner, Path(best.best_model_path))
            settings = yaml.safe_load(config)
            about = {"method": {"name": name, **settings["method"]}, "protocol": settings["data"] | {"selection": IID}}
            adapter.save(model, folder, {"name": settings["backbone"]["name"], "backbone": settings["backbone"], "hash": base}, about)
            write_history(run, adaptation.history)
            fold(model.backbone)
            record = provenance(command) | {
                "overrides": list(overrides),
                "choices": dict(choices),
                "seed": seed,
                "selection": IID,
                "monitor": MONITOR,
                "monitored": float(best.best_model_score) if best.best_model_score is not None else None,
                "epoch": int(chosen["epoch"]),
                "steps": int(chosen["global_step"]),
                "finished": finished,
                "trainable": trainable,
                "parameters": parameters,
                "device": str(worker.strategy.root_device),
                "seconds": round(time.perf_counter() - started, 1),
                "manifests": {"train": manifests.summary(training), "test": tested(tests)},
                "skipped": data.skipped,
            }
            run.write_record(record)  # from here on the run can be evaluated, whatever happens to the tests
            if not finished:
                log.warning("Interrupted: the best weights so far are kept; test them with: fmsd evaluate run=%s", folder)
                raise KeyboardInterrupt
            table = test(run, worker, model, data, IID)
            for extra in loggers:
                if isinstance(extra, WandbLogger):
                    wandb.publish(extra, table, folder)
        finally:
            wandb.close()
    show(table, f"AUC, {name} trained on {', '.join(data.train_names)}", caption(record))
    print(f"The run lies in {folder}")
    return run


def fit(trainer: Trainer, learner: Learner, data: DataModule) -> bool:
    """Trains the learner; whether to its end. Lightning answers Ctrl-C by leaving the program: that is held up until the weights are saved.

    Raises:
        InputError: settings that Lightning refuses once it sees the learner.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            trainer.fit(learner, datamodule=data)
        except SystemExit:
            return False
        except MisconfigurationException as error:
            raise InputError(f"The trainer does not take its settings ({' '.join(str(error).split())}); correct trainer.NAME=VALUE.") from error
    return True


def choose(learner: Learner, checkpoint: Path) -> dict[str, Any]:
    """Loads the chosen checkpoint into the learner and returns it.

    Raises:
        InputError: there is none.
    """
    if not checkpoint.is_file():
        raise InputError("Training ended before the first validation, so no weights could be chosen; raise trainer.max_steps to at least one epoch.")
    chosen = torch.load(checkpoint, map_location="cpu", weights_only=True)
    learner.load_state_dict(chosen["state_dict"])
    return chosen


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold."""
    return sum(parameter.numel() for parameter in parameters)


def optimizer_steps(trainer: Trainer, batches: int, accumulate: int) -> int:
    """How often the optimizer steps in the whole training, for its schedule.

    Raises:
        InputError: neither epochs nor steps are limited, or a step takes no batch.
    """
    if accumulate < 1:
        raise InputError(f"learner.accumulate={accumulate} must be at least 1.")
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    epochs = trainer.max_epochs
    planned = [math.ceil(batches / accumulate) * epochs] if epochs is not None and epochs >= 0 else []
    planned += [trainer.max_steps] if trainer.max_steps >= 0 else []
    if not planned:
        raise InputError("Training has no end, so its schedule has no length; set trainer.max_epochs or trainer.max_steps.")
    return min(planned)


def write_mask(run: Run, mask: LayerMask | None) -> None:
    """Writes which layers a method chose, if it did, as JSON and as a picture."""
    if mask is not None:
        run.write("mask.json", mask.text())
        plots.layer_mask(mask, run.folder / "mask.png")


def write_history(run: Run, history: MaskHistory | None) -> None:
    """Writes which artifact subspaces learned so far, where that changes, as JSON and, from the first mask on, as a picture."""
    if history is not None:
        run.write("mask.json", history.text())
        if history.steps:
            plots.mask_history(history, run.folder / "mask.png")
