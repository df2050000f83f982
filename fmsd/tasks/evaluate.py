"""Evaluation: score the test datasets with a run's weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from fmsd.data import manifest as manifests
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Scorer
from fmsd.engine.predictions import gather, joined
from fmsd.metrics.table import results, wide
from fmsd.models.detector import Detector
from fmsd.report.console import show as show_table
from fmsd.report.run import Run, caption, provenance
from fmsd.types import Frames


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
        detector: makes the run's detector with its chosen weights.

    Raises:
        InputError: the run is not finished, or the data cannot be used.
    """
    trained = run.record()
    tests = data.tests
    worker = trainer(logger=False, enable_checkpointing=False, default_root_dir=folder)
    scorer = Scorer(detector())
    predictions = pl.concat([predict(worker, scorer, data.test_loader(name), manifest) for name, manifest in tests.items()])
    table = results(predictions, trained["selection"])
    evaluation = Run(folder)
    evaluation.write("config.yaml", config)
    evaluation.write_results(predictions, table)
    record = {
        key: trained[key]
        for key in ("overrides", "choices", "seed", "selection", "monitor", "monitored", "epoch", "trainable", "parameters", "seconds")
    }
    tested = {"test": {name: manifests.summary(manifest)[name] for name, manifest in tests.items()}}
    record |= provenance(command) | {"run": str(run.folder), "manifests": tested}
    evaluation.write("run.json", json.dumps(record, indent=2) + "\n")
    show(table, f"AUC of {run.folder}", caption(record))
    print(f"The evaluation lies in {folder}")
    return evaluation


def predict(trainer: Trainer, scorer: LightningModule, loader: DataLoader[Frames], manifest: Manifest) -> pl.DataFrame:
    """The manifest's rows with their logits, scored once through `trainer.predict`, whose sampler repeats no frame."""
    batches = trainer.predict(scorer, dataloaders=loader)
    return joined(manifest, gather(batches or []))  # pyright: ignore[reportArgumentType]


def show(table: pl.DataFrame, title: str, note: str) -> None:
    """Prints the AUC of every dataset, frames and videos apart; values below chance are marked as inverted."""
    rows = [[str(line[0]), *(f"{value:.3f}{' (inverted)' if value < 0.5 else ''}" for value in line[1:])] for line in wide(table).rows()]
    show_table(title, wide(table).columns, rows, note)
