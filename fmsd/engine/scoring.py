"""Scoring: a run's detector over data sets, and what follows from it: predictions, results, robustness."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from fmsd.data import description
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Scorer
from fmsd.engine.predictions import gather, joined
from fmsd.engine.stamp import stamped
from fmsd.figures import style
from fmsd.figures.robustness import plot_robustness
from fmsd.metrics.table import compute_results
from fmsd.models.detector import Detector
from fmsd.runs.folder import CORRUPTIONS, Run
from fmsd.types import Frames

log = logging.getLogger(__name__)


def tested(tests: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """Digest and size of every test dataset, for the record."""
    return {name: description.describe_datasets(manifest)[name] for name, manifest in tests.items()}


def test(run: Run, trainer: Trainer, detector: Detector, data: DataModule) -> pl.DataFrame:
    """Scores every test dataset once and writes predictions, dataset by dataset, and the result tables."""
    return stress(run, run.record(), trainer, detector, data, ())


def stress(
    run: Run,
    record: Mapping[str, Any],
    trainer: Trainer,
    detector: Detector,
    data: DataModule,
    corruptions: Sequence[Corruption],
) -> pl.DataFrame:
    """Tests as `test` does, and once more under every corruption; the results on clean images, which it returns, are written last.

    Args:
        record: what the run says about the choice of the weights, its thresholds and its stamps.
    """
    scorer = Scorer(detector)
    table = scored(run, record, trainer, scorer, data)
    if corruptions:
        parts = [table.with_columns(corruption=pl.lit("none"), severity=pl.lit(0))]
        for count, corruption in enumerate(corruptions, 1):
            log.info("Corruption %d of %d: %s, severity %d", count, len(corruptions), *corruption)
            found = scored(run, record, trainer, scorer, data, corruption)
            parts.append(
                found.with_columns(
                    corruption=pl.lit(corruption.name), severity=pl.lit(corruption.severity)
                )
            )
        robustness = pl.concat(parts)
        run.write(CORRUPTIONS, robustness.write_csv())
        style.write_png(plot_robustness(robustness), run.folder / "robustness.png")
    run.write_results(table)
    return table


def scored(
    run: Run,
    record: Mapping[str, Any],
    trainer: Trainer,
    scorer: LightningModule,
    data: DataModule,
    corruption: Corruption | None = None,
) -> pl.DataFrame:
    """The results on all test datasets, as they are or corrupted; writes the predictions of each."""
    folder, parts = "" if corruption is None else f"{corruption.name}_{corruption.severity}/", []
    for name, manifest in data.tests.items():
        parts.append(predict(trainer, scorer, data.test_loader(name, corruption), manifest))
        run.write_predictions(f"{folder}{name}", parts[-1])
    table = compute_results(
        pl.concat(parts),
        record["selection"],
        data.protocol,
        data.naming,
        data.video_score,
        record["thresholds"],
    )
    return stamped(table, record["stamps"])


def predict(
    trainer: Trainer, scorer: LightningModule, loader: DataLoader[Frames], manifest: Manifest
) -> pl.DataFrame:
    """The manifest's rows with their logits, scored once through `trainer.predict`, whose sampler repeats no frame."""
    try:
        batches = trainer.predict(scorer, dataloaders=loader)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    return joined(manifest, gather(batches or []))  # pyright: ignore[reportArgumentType]
