"""Training: adapt a detector, choose its weights on validation data, then test them once on every test dataset."""

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch
import polars as pl
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from safetensors.torch import save_file

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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    penalties = method(model)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info(
        "%s: %s of %s parameters learn, on %d frames; %d frames choose the weights.",
        choices.get("method"),
        f"{trainable:,}",
        f"{parameters:,}",
        len(training.where(split="train")),
        len(data.validation),
    )

    run.write("config.yaml", config)
    loggers = [CSVLogger(folder, name="logs", version="")] + ([logger(folder)] if logger else [])
    best = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor=MONITOR,
        mode="max",
        save_last=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    worker = trainer(callbacks=[ValidationMetrics(data.validation), best], logger=loggers, default_root_dir=folder)
    batches = math.ceil(len(training.where(split="train")) / data.batch_size)
    if isinstance(worker.limit_train_batches, int):
        batches = min(batches, worker.limit_train_batches)
    steps = math.ceil(batches / accumulate) * (worker.max_epochs or 1)
    steps = steps if worker.max_steps < 0 else min(steps, worker.max_steps)
    learner = Learner(model, wrapper, optimizer, schedule, penalties, steps, weight_decay, accumulate, clip)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*`LRScheduler.step.*")
        worker.fit(learner, datamodule=data)
    if worker.interrupted:
        raise KeyboardInterrupt

    chosen = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    learner.load_state_dict(chosen["state_dict"])
    fold(model.backbone)
    state = {key: value.detach().cpu().contiguous() for key, value in model.backbone.state_dict().items()}
    partial = run.weights.with_suffix(".partial")
    save_file(
        state,
        partial,
        metadata={"backbone": str(choices.get("backbone")), "mean": str(model.mean.flatten().tolist()), "std": str(model.std.flatten().tolist())},
    )
    partial.replace(run.weights)

    scorer = Scorer(model)
    predictions = pl.concat([predict(worker, scorer, data.test_loader(name), manifest) for name, manifest in tests.items()])
    table = results(predictions, IID)
    record = provenance(list(command)) | {
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
        "manifests": {"train": manifests.summary(training), "test": {name: manifests.summary(manifest)[name] for name, manifest in tests.items()}},
    }
    run.write_results(predictions, table)
    run.write("run.json", json.dumps(record, indent=2) + "\n")
    for extra in loggers:
        if isinstance(extra, WandbLogger):
            wandb.publish(extra, table)
    show(table, f"AUC, {choices.get('method')} trained on {', '.join(data.train_names)}", caption(record))
    print(f"The run lies in {folder}")
    return run
