"""Scoring: predictions of a detector, the thresholds that they choose, and the results."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from fmsd.data.description import describe_datasets
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.manifest import Manifest
from fmsd.data.selection import Selection
from fmsd.engine.datamodule import DataModule
from fmsd.engine.detectors import build_detector, load_folded_detector
from fmsd.engine.lightning_compat import LightningExit
from fmsd.engine.predictions import gather_predictions, with_expected, with_logits
from fmsd.engine.scorer import Scorer
from fmsd.engine.stamp import Facts, with_coverage, with_frames, with_stamps
from fmsd.engine.trainer import TrainerFactory, single_process_trainer
from fmsd.figures import style
from fmsd.figures.robustness import plot_robustness
from fmsd.metrics.coverage import EXCLUDE, REFUSE, check_coverage, check_share, coverage_text
from fmsd.metrics.equal_scores import has_equal_scores, warn_of_equal_scores
from fmsd.metrics.table import LEVELS, compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.models.detector import Detector
from fmsd.outcomes import SCORED
from fmsd.runs.folder import CORRUPTIONS, VALIDATION, Run
from fmsd.runs.predictions import read_predictions
from fmsd.runs.validation_features import (
    FEATURES,
    ValidationFeatures,
    choose_rows,
    unit,
    write_features,
)
from fmsd.types import Frames

log = logging.getLogger(__name__)


def manifest_records(tests: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """Digest and size of every test dataset, for the record of a run."""
    return {name: describe_datasets(manifest)[name] for name, manifest in tests.items()}


def load_for_scoring(
    run: Run, detector: Callable[[], Detector], trainer: TrainerFactory, folder: Path
) -> tuple[Detector, Trainer]:
    """The detector of a run with its adapter folded in, and the trainer that scores with it.

    Args:
        detector: builds the base that the run began with.
        folder: where the trainer may write.

    Raises:
        InputError: the run has no adapter, `detector` builds another base, or the trainer's
            settings are refused.
    """
    single = single_process_trainer(trainer, folder)
    build = partial(build_detector, detector, single.strategy.root_device, single.precision)
    return load_folded_detector(run, build), single


def predict_validation(
    run: Run, trainer: Trainer, detector: Detector, data: DataModule
) -> pl.DataFrame:
    """The predictions of a detector on the validation split.

    Also writes them, and the features of some of the frames, see `fmsd.runs.validation_features`.
    """
    loader, manifest = data.validation_loader(), data.splits.validation
    scorer = Scorer(detector, kept=choose_rows(len(manifest)).tolist())
    predictions = predict(trainer, scorer, loader, manifest)
    run.write_table(VALIDATION, predictions)
    if scorer.features:
        write_features(run.folder / FEATURES, with_videos(scorer.features, manifest))
    if has_equal_scores(predictions["logit"]):
        warn_of_equal_scores(["the validation split"])
    return predictions


def with_videos(features: Mapping[int, Tensor], manifest: Manifest) -> ValidationFeatures:
    """The features of frames as unit vectors, with the numbers of their videos.

    Args:
        features: by row of the manifest.
    """
    row = np.array(sorted(features), np.int64)
    video = manifest.table[row].select(pl.struct("dataset", "video").rank("dense"))
    vectors = unit(torch.stack([features[each] for each in row.tolist()]).numpy())
    return ValidationFeatures(vectors, row, video.to_series().cast(pl.Int64).to_numpy())


def choose_thresholds(run: Run, video_score: str) -> dict[str, float] | None:
    """The decision thresholds by level, chosen on the run's predictions of the validation split.

    Args:
        video_score: see `fmsd.metrics.video.aggregate_videos`.

    Returns:
        None where the run has no such predictions, as a merge.
    """
    path = run.folder / VALIDATION
    return best_thresholds(read_predictions(path), video_score) if path.is_file() else None


def score_with_corruptions(
    run: Run,
    record: Mapping[str, Any],
    trainer: Trainer,
    detector: Detector,
    data: DataModule,
    corruptions: Sequence[Corruption] = (),
    coverage: str | None = None,
) -> tuple[pl.DataFrame, dict[str, Facts]]:
    """Scores every test dataset once, and once more under each corruption; writes all results.

    The results on clean images are written last, when everything else is there.

    Args:
        record: holds the rule of selection, the thresholds, the stamps and the overlap of the run.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.

    Returns:
        The results on clean images, and the facts behind their stamps.
    """
    scorer = Scorer(detector)
    table, stamps = score_datasets(run, record, trainer, scorer, data, coverage=coverage)
    if corruptions:
        parts = [table.with_columns(corruption=pl.lit("none"), severity=pl.lit(0))]
        for number, corruption in enumerate(corruptions, 1):
            log.info("Corruption %d of %d: %s, severity %d", number, len(corruptions), *corruption)
            corrupted, _ = score_datasets(run, record, trainer, scorer, data, corruption, coverage)
            parts.append(
                corrupted.with_columns(
                    corruption=pl.lit(corruption.name), severity=pl.lit(corruption.severity)
                )
            )
        robustness = pl.concat(parts)
        run.write(CORRUPTIONS, robustness.write_csv())
        style.write_png(plot_robustness(robustness), run.folder / "robustness.png")
    run.write_results(table)
    return table, stamps


def score_datasets(
    run: Run,
    record: Mapping[str, Any],
    trainer: Trainer,
    scorer: LightningModule,
    data: DataModule,
    corruption: Corruption | None = None,
    coverage: str | None = None,
) -> tuple[pl.DataFrame, dict[str, Facts]]:
    """Scores all test datasets, clean or corrupted; writes the predictions of each.

    Test images that cannot be read are an error, unless `coverage` says what becomes of them.

    Returns:
        The results, and the facts behind their stamps.

    Raises:
        InputError: an image cannot be read, or too few frames have a score.
    """
    folder = "" if corruption is None else f"{corruption.name}_{corruption.severity}/"
    parts, equal = dict[str, pl.DataFrame](), list[str]()
    lenient = coverage not in (None, REFUSE)
    for name, manifest in data.tests.items():
        loader = data.test_loader(name, corruption, skip_unreadable=lenient)
        scored = predict(trainer, scorer, loader, manifest, clean=corruption is None)
        predictions = with_expected(scored, manifest, data.absent[name])
        run.write_predictions(f"{folder}{name}", predictions)
        parts[name] = predictions
        if has_equal_scores(predictions["logit"]):
            equal.append(name if corruption is None else f"{name} ({folder[:-1]})")
    warn_of_equal_scores(equal)
    return results_of_tests(parts, record, data.selection, coverage)


def results_of_tests(
    predictions: Mapping[str, pl.DataFrame],
    record: Mapping[str, Any],
    selection: Selection,
    coverage: str | None,
    metrics: Sequence[str] | None = None,
    levels: Sequence[str] = LEVELS,
) -> tuple[pl.DataFrame, dict[str, Facts]]:
    """The results of tests, and the facts behind their stamps.

    Where not every expected frame has a score, a warning says so, and `coverage` is one of the
    facts.

    Args:
        predictions: a row per expected frame, by dataset, see `with_expected`.
        record: holds the rule of selection, the thresholds, the stamps and the overlap of the run.
        coverage, metrics, levels: see `fmsd.metrics.table.compute_results`.

    Raises:
        InputError: too few frames have a score.
    """
    stamps = with_coverage(record["stamps"], predictions, coverage)
    tables = [
        compute_results(
            frames,
            record["selection"],
            selection.protocol,
            selection.naming,
            selection.video_score,
            record["thresholds"],
            metrics,
            coverage,
            levels,
            selection.definitions,
        )
        for frames in predictions.values()
    ]
    table = pl.concat(tables)
    warn_of_unscored(table, coverage)
    return with_frames(with_stamps(table, stamps), predictions, record["overlap"]), stamps


def warn_of_unscored(table: pl.DataFrame, coverage: str | None) -> None:
    """Warns of datasets in which not every expected video or frame has a score.

    Args:
        table: results with the counts of outcomes.
    """
    counts = table.unique(["dataset", "level"], keep="first", maintain_order=True)
    for row in counts.filter(pl.col("n_scored") < pl.col("n_expected")).iter_rows(named=True):
        log.warning(
            "%s of %s: %s (coverage=%s).",
            f"{row['level']}s".capitalize(),
            row["dataset"],
            coverage_text(row),
            coverage or EXCLUDE,
        )


def check_expected(data: DataModule, coverage: str | None) -> None:
    """Refuses test datasets of which too few videos have frames, before anything is scored.

    Args:
        data: its test datasets are loaded.
        coverage: see `fmsd.metrics.coverage.cover`.

    Raises:
        InputError: see `fmsd.metrics.coverage.check_share`.
    """
    check_coverage(coverage)
    columns = ("dataset", "label", "video")
    for name, manifest in data.tests.items():
        if len(data.absent[name]):
            known = manifest.table.select(*columns, outcome=pl.lit(SCORED))
            check_share(pl.concat([known, data.absent[name].select(known.columns)]), coverage)


def predict(
    trainer: Trainer,
    scorer: LightningModule,
    loader: DataLoader[Frames],
    manifest: Manifest,
    *,
    clean: bool = True,
) -> pl.DataFrame:
    """The manifest's rows with their logits.

    Args:
        clean: the images are those of the files, see `with_logits`.

    Raises:
        KeyboardInterrupt: on a signal.
    """
    try:
        batches = trainer.predict(scorer, dataloaders=loader)
    except LightningExit as error:
        raise KeyboardInterrupt from error
    scores = gather_predictions(batches or [])  # pyright: ignore[reportArgumentType]
    return with_logits(manifest, scores, str(trainer.precision), clean=clean)
