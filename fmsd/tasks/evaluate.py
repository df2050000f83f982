"""Evaluation: score the test datasets with a run's weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch
import polars as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from fmsd.data import manifest as manifests
from fmsd.data.manifest import Manifest
from fmsd.engine.callbacks import WholeFiles
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Scorer
from fmsd.engine.predictions import gather, joined
from fmsd.engine.processes import Processes, named
from fmsd.metrics.table import results, wide
from fmsd.models.detector import Detector
from fmsd.peft import adapter
from fmsd.peft.inject import fold
from fmsd.report.console import show as show_table
from fmsd.report.run import Run, caption, claimed, provenance
from fmsd.types import Frames, InputError

log = logging.getLogger(__name__)

CARRIED = ("overrides", "choices", "seed", "selection", "monitor", "monitored", "epoch", "trainable", "parameters", "seconds", "merged")
"""What an evaluation's record repeats of its run's."""


def evaluate(
    run: Run,
    detector: Callable[[], Detector],
    data: DataModule,
    trainer: Callable[..., Trainer],
    folder: Path,
    config: str,
    command: Sequence[str],
) -> Run:
    """Tests a run's weights on the test datasets of `data` and writes results and predictions to `folder`.

    Args:
        detector: makes the detector that the run began with.

    Raises:
        InputError: the run is not finished, or the data cannot be used.
    """
    trained = run.record()
    evaluation = Run(folder)
    with claimed(evaluation, config):
        tests = data.tests
        for name, manifest in tests.items():
            before = trained["manifests"]["test"].get(name, {}).get("digest")
            if before is not None and before != manifest.digest():
                log.warning("%s is not what the run was tested on: other frames, splits or labels (see manifests in run.json).", name)
        table = test(evaluation, alone(trainer, folder), folded(run, detector), data, trained["selection"])
        record = {key: trained[key] for key in CARRIED if key in trained}
        evaluation.write_record(
            record | provenance(command) | {"run": str(run.folder), "manifests": {"test": tested(tests)}, "skipped": data.skipped}
        )
    show(table, f"AUC of {run.folder}", caption(record))
    print(f"The evaluation lies in {folder}")
    return evaluation


def folded(run: Run, detector: Callable[[], Detector]) -> Detector:
    """The detector of a run as a plain timm model: its base with the adapter folded in.

    Raises:
        InputError: the run has no adapter, or `detector` makes another base.
    """
    lightning.pytorch.seed_everything(run.record()["seed"], workers=True, verbose=False)  # a backbone without pretrained weights follows from it
    model = detector()
    adapter.load(model, run.folder)
    fold(model.backbone)
    return model


def tested(tests: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """Digest and size of every test dataset, for the record."""
    return {name: manifests.summary(manifest)[name] for name, manifest in tests.items()}


def made(trainer: Callable[..., Trainer], **arguments: Any) -> Trainer:
    """The trainer, if it can be had and gives right numbers.

    Raises:
        InputError: settings that Lightning does not take, several processes by another strategy than ours, or 16-bit gradients
            without the range of bfloat16.
    """
    asked = getattr(trainer, "keywords", {})
    try:
        if SLURMEnvironment.detect() and "plugins" not in asked:  # Lightning would save in the middle of a step and resubmit by itself
            arguments["plugins"] = [SLURMEnvironment(auto_requeue=False)]
        worker = trainer(**arguments)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The trainer does not take its settings ({' '.join(str(error).split())}); correct trainer.NAME=VALUE.") from error
    if worker.world_size > 1 and not isinstance(worker.strategy, Processes):
        raise InputError(f"Training in {worker.world_size} processes needs trainer=ddp, which joins their gradients; or set trainer.devices=1.")
    check_precision(str(asked.get("precision", worker.precision)))  # a CPU takes another than asked for
    worker.strategy.checkpoint_io = WholeFiles()
    return worker


def check_precision(precision: str) -> None:
    """Refuses 16-bit training without the range of float32 in its gradients, and 16-bit weights.

    Raises:
        InputError: such a precision.
    """
    if precision in ("16", "16-mixed", "16-true", "bf16-true"):
        what = "round what learns to 8 bits" if precision == "bf16-true" else "scale the gradients that wrappers and clipping rely on"
        raise InputError(f"trainer.precision={precision} would {what}; use bf16-mixed or 32-true.")


def alone(trainer: Callable[..., Trainer], folder: Path) -> Trainer:
    """The trainer in a single process, in which everything is tested: the numbers then depend on no splitting."""
    devices = named(getattr(trainer, "keywords", {}).get("devices"))[:1] or 1
    return made(trainer, devices=devices, num_nodes=1, strategy="auto", logger=False, enable_checkpointing=False, default_root_dir=folder)


def test(run: Run, trainer: Trainer, detector: Detector, data: DataModule, selection: str) -> pl.DataFrame:
    """Scores every test dataset once and writes predictions, dataset by dataset, and the result tables."""
    scorer, scored = Scorer(detector), []
    for name, manifest in data.tests.items():
        scored.append(predict(trainer, scorer, data.test_loader(name), manifest))
        run.write_predictions(name, scored[-1])
    table = results(pl.concat(scored), selection, data.protocol, data.naming)
    run.write_results(table)
    return table


def predict(trainer: Trainer, scorer: LightningModule, loader: DataLoader[Frames], manifest: Manifest) -> pl.DataFrame:
    """The manifest's rows with their logits, scored once through `trainer.predict`, whose sampler repeats no frame."""
    try:
        batches = trainer.predict(scorer, dataloaders=loader)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    return joined(manifest, gather(batches or []))  # pyright: ignore[reportArgumentType]


def show(table: pl.DataFrame, title: str, note: str) -> None:
    """Prints the AUC of every dataset, frames and videos apart; values below chance are marked as inverted."""
    rows = [[str(line[0]), *(f"{value:.3f}{' (inverted)' if value < 0.5 else ''}" for value in line[1:])] for line in wide(table).rows()]
    show_table(title, wide(table).columns, rows, note)
