"""Training: adapt a detector, choose its weights on validation data, then test them once on every test dataset."""

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch
import polars as pl
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from safetensors.torch import save_file
from torch import nn

from fmsd.data import manifest as manifests
from fmsd.engine.callbacks import IID, MONITOR, ValidationMetrics
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Learner, OptimizerFactory, ScheduleFactory, Scorer
from fmsd.metrics.table import results
from fmsd.models.detector import Detector
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft.inject import Method, fold
from fmsd.report import wandb
from fmsd.report.run import Run, caption, provenance
from fmsd.tasks.evaluate import predict, show
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
) -> Run:
    """Trains, selects and tests; everything that the run found lies in its folder.

    Args:
        name: the method's name, for the table.
        detector, trainer, logger: factories; they are called after the seed is set and the data is checked.
        config: the composed configuration as YAML text.
        command, overrides, choices: what was asked for, for the record.

    Raises:
        InputError: input that cannot be used; before the first checkpoint nothing of the run is left behind.
    """
    started = time.perf_counter()
    run = Run(folder)
    if run.config.exists():
        raise InputError(f"{folder} already holds a run; choose another folder with hydra.run.dir=PATH.")
    training, tests = data.training, data.tests
    lightning.pytorch.seed_everything(seed, workers=True, verbose=False)
    model = detector()
    parameters = count(model.parameters())
    penalties = method(model)
    trainable = count(parameter for parameter in model.parameters() if parameter.requires_grad)
    frames = len(training.where(split="train"))
    log.info(
        "%s: %s of %s parameters learn on %d frames; %d choose the weights.", name, f"{trainable:,}", f"{parameters:,}", frames, len(data.validation)
    )

    run.write("config.yaml", config)
    loggers = [CSVLogger(folder, name="logs", version=""), *([logger(folder)] if logger else [])]
    best = ModelCheckpoint(folder / "checkpoints", filename="best", monitor=MONITOR, mode="max", save_last=True, enable_version_counter=False)
    worker = trainer(callbacks=[ValidationMetrics(data.validation), best], logger=loggers, default_root_dir=folder)
    refuse(worker)
    steps = optimizer_steps(worker, math.ceil(frames / data.batch_size), accumulate)
    learner = Learner(model, wrapper, optimizer, schedule, penalties, steps, weight_decay, accumulate, clip)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        worker.fit(learner, datamodule=data)
    if not best.best_model_path:
        raise InputError("Training ended before the first validation, so no weights could be chosen; raise trainer.max_steps to at least one epoch.")

    chosen = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    learner.load_state_dict(chosen["state_dict"])
    fold(model.backbone)
    export(model, run.weights)
    scorer = Scorer(model)
    predictions = pl.concat([predict(worker, scorer, data.test_loader(test), manifest) for test, manifest in tests.items()])
    table = results(predictions, IID)
    record = provenance(command) | {
        "overrides": list(overrides),
        "choices": dict(choices),
        "seed": seed,
        "selection": IID,
        "monitor": MONITOR,
        "monitored": float(best.best_model_score) if best.best_model_score is not None else None,
        "epoch": int(chosen["epoch"]),
        "steps": int(chosen["global_step"]),
        "trainable": trainable,
        "parameters": parameters,
        "device": str(worker.strategy.root_device),
        "seconds": round(time.perf_counter() - started, 1),
        "manifests": {"train": manifests.summary(training), "test": {test: manifests.summary(manifest)[test] for test, manifest in tests.items()}},
    }
    run.write_results(predictions, table)
    run.write("run.json", json.dumps(record, indent=2) + "\n")
    for extra in loggers:
        if isinstance(extra, WandbLogger):
            wandb.publish(extra, table)
    show(table, f"AUC, {name} trained on {', '.join(data.train_names)}", caption(record))
    print(f"The run lies in {folder}")
    return run


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold."""
    return sum(parameter.numel() for parameter in parameters)


def refuse(trainer: Trainer) -> None:
    """Refuses what would give wrong numbers.

    Raises:
        InputError: several processes, or 16-bit gradients without the range of bfloat16.
    """
    if trainer.world_size > 1:
        raise InputError(f"Training in {trainer.world_size} processes is not supported yet; set trainer.devices=1.")
    if trainer.precision in ("16-mixed", "16-true"):
        raise InputError(f"trainer.precision={trainer.precision} would clip scaled gradients; use bf16-mixed or 32-true.")


def optimizer_steps(trainer: Trainer, batches: int, accumulate: int) -> int:
    """How often the optimizer steps in the whole training, for its schedule."""
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    epochs = trainer.max_epochs
    planned = math.ceil(batches / accumulate) * epochs if epochs is not None and epochs >= 0 else math.inf
    return int(min(planned, trainer.max_steps if trainer.max_steps >= 0 else math.inf))


def export(detector: Detector, path: Path) -> None:
    """Writes a folded detector's backbone as safetensors in timm's keys, atomically; its normalisation goes into the metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in detector.backbone.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata={"mean": str(detector.mean.flatten().tolist()), "std": str(detector.std.flatten().tolist())})
    partial.replace(path)
