"""Predictions of all rows, read once: intervals by resampling, results per forgery, curves."""

import functools
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64

from fmsd.console import track
from fmsd.figures.curves import Scored
from fmsd.metrics.calibration import reliability
from fmsd.metrics.hierarchical import resample_seeds
from fmsd.metrics.interval import enough_videos, percentile_interval, resample_metrics
from fmsd.metrics.score_meaning import ScoreMeaning
from fmsd.metrics.table import (
    results_by_domain,
    scores_by_dataset,
    scores_by_level,
)
from fmsd.metrics.verdicts import count_verdicts
from fmsd.metrics.video import aggregate_videos
from fmsd.report.coverage import with_forgery_coverage
from fmsd.report.rows import Row
from fmsd.report.tables import ResampledMetrics
from fmsd.report.threads import in_threads
from fmsd.report.validation import KnownMeanings
from fmsd.report.video_statistics import VideoCollector, VideoStatistics


@dataclass(frozen=True)
class CurveData:
    """Scores of one run on one dataset, for curves.

    Args:
        videos: score and label of every video.
        domains: the scores of each domain's frames.
        reliability: of the frames, see `fmsd.metrics.calibration.reliability`; None for scores of
            an unknown scale.
    """

    videos: Scored
    domains: Mapping[str, Float64[np.ndarray, " frames"]]
    reliability: pl.DataFrame | None


@dataclass(frozen=True)
class Resamples:
    """Statistics computed from the predictions of all rows.

    Args:
        samples: a metric on resamples, by label, column (dataset, or forgery as DATASET/DOMAIN) and
            level; the mean over seeds, which are resampled, too, if there are enough (see
            `fmsd.metrics.hierarchical`). Tests with too few videos are left out.
        intervals: columns run, seed, dataset (the column), level, metric, low, high.
        domains: the metrics of each forgery, with run and seed.
        scores: curves of the first seed of each label, by label and dataset.
        verdicts: see `fmsd.metrics.verdicts.count_verdicts`, with run and seed; of the rows with
            validation predictions.
        videos: further statistics of video scores.
        meanings: what the scores of the rows mean by their validation data.
    """

    samples: ResampledMetrics
    intervals: pl.DataFrame
    domains: pl.DataFrame
    scores: Mapping[tuple[str, str], CurveData]
    verdicts: pl.DataFrame
    videos: VideoStatistics
    meanings: KnownMeanings


INTERVALS_SCHEMA = {
    "run": pl.String,
    "seed": pl.Int64,
    "dataset": pl.String,
    "level": pl.String,
    "metric": pl.String,
    "low": pl.Float64,
    "high": pl.Float64,
}


def resample_rows(
    rows: Sequence[Row],
    metric: str,
    resamples: int,
    *,
    curves_of: Collection[str] = (),
    forgery_metrics: Sequence[str] = (),
    by_forgery: bool = False,
    verdicts: bool = False,
    paired: bool = False,
    statistics: bool = False,
) -> Resamples:
    """Reads the predictions of all rows, each once, and computes everything a report needs.

    Args:
        metric: the metric to resample.
        resamples: number of bootstrap resamples of videos; 0 for no intervals.
        curves_of: the labels to keep curves of.
        forgery_metrics: the metrics to compute of each forgery; none by default.
        by_forgery: resample each forgery of `forgery_metrics` with the real videos of its dataset,
            instead of whole datasets.
        verdicts: count the verdicts at the thresholds of validation data.
        paired: keep what DeLong's test of differences needs.
        statistics: compute the other statistics of videos, too.

    Raises:
        InputError: predictions are missing or damaged.
    """
    samples: dict[tuple[str, str, str], list[np.ndarray]] = {}
    intervals, domains, scores = [], [], {}
    counted, meanings = list[pl.DataFrame](), KnownMeanings()
    videos = VideoCollector(paired, statistics)
    tests = [(row, dataset) for row in rows for dataset in row.prediction_files]
    wanted = functools.partial(
        _resample_test, metric, resamples, forgery_metrics=forgery_metrics, by_forgery=by_forgery
    )
    computed = track(in_threads(wanted, tests), "Reading predictions", len(tests), "tables")
    for (row, dataset), (frames, forgeries, resampled) in zip(tests, computed, strict=True):
        rules = row.scoring_rules(dataset)
        seed = {"run": pl.lit(row.label), "seed": pl.lit(row.seed, pl.Int64)}
        known = meanings(row, rules["video_score"]) if verdicts or statistics else None
        meaning = known["video"] if known else None
        if verdicts and meaning is not None:
            part = count_verdicts(
                frames,
                meaning.points,
                rules["naming"],
                rules["video_score"],
                rules["definitions"],
            )
            counted.append(part.with_columns(**seed))
        if forgery_metrics:
            domains.append(forgeries.with_columns(**seed))
        for column, level, values in resampled:
            samples.setdefault((row.label, column, level), []).append(values)
            ends = percentile_interval(values)
            intervals.append((row.label, row.seed, column, level, metric, *ends))
        if paired or statistics:
            _add_videos(videos, row, dataset, frames, meaning)
        if row.label in curves_of and (row.label, dataset) not in scores:
            data = _curve_data(frames, rules)
            if not row.measurable(["ece"]) or "frame" not in row.levels_of(dataset):
                data = replace(data, reliability=None)
            scores[row.label, dataset] = data
    return Resamples(
        {cell: resample_seeds(seeds, cell[0]) for cell, seeds in samples.items()},
        pl.DataFrame(intervals, schema=INTERVALS_SCHEMA, orient="row"),
        pl.concat(domains, how="vertical_relaxed") if domains else pl.DataFrame(),
        scores,
        pl.concat(counted) if counted else pl.DataFrame(),
        videos.result(),
        meanings,
    )


def _resample_test(
    metric: str,
    resamples: int,
    test: tuple[Row, str],
    *,
    forgery_metrics: Sequence[str],
    by_forgery: bool,
) -> tuple[pl.DataFrame, pl.DataFrame, list[tuple[str, str, Float64[np.ndarray, " resamples"]]]]:
    """What takes the most time of a test, see `resample_rows`.

    Args:
        test: the row and the dataset.

    Returns:
        The predictions; the metrics of each forgery; column, level and values of the resamples.
    """
    row, dataset = test
    expected, rules = row.expected_frames(dataset), row.scoring_rules(dataset)
    frames = row.ranked_frames(dataset, expected)
    forgeries = pl.DataFrame()
    if forgery_metrics:
        forgeries = results_by_domain(
            frames, **rules, metrics=row.measurable(forgery_metrics), levels=row.levels_of(dataset)
        )
        forgeries = with_forgery_coverage(forgeries, expected, rules["naming"])
    if not resamples:
        return frames, forgeries, []
    measured = row.results.filter(dataset=dataset, metric=metric)
    parts = (
        _split_forgeries(dataset, frames, forgeries)
        if by_forgery
        else _if_sufficient(dataset, frames, measured)
    )
    levels = row.levels_of(dataset)
    return (
        frames,
        forgeries,
        [
            (column, level, values)
            for column, part in parts
            for level, values in _resample(column, part, metric, resamples, levels, **rules)
        ],
    )


def _add_videos(
    videos: VideoCollector,
    row: Row,
    dataset: str,
    frames: pl.DataFrame,
    meaning: ScoreMeaning | None,
) -> None:
    """Adds a test to the statistics of videos; after the last one of a row, its pairs of tests."""
    rules = row.scoring_rules(dataset)
    ((_, scored),) = scores_by_dataset(frames, rules["naming"])
    table = aggregate_videos(scored, rules["video_score"], rules["definitions"]).sort("video")
    score = torch.from_numpy(table["score"].to_numpy(writable=True))
    label = torch.from_numpy(table["label"].cast(pl.Int64).to_numpy(writable=True))
    videos.add(row, dataset, scored, (score, label), rules, meaning)
    if dataset == list(row.prediction_files)[-1]:
        videos.end_row(row)


def _resample(
    column: str,
    frames: pl.DataFrame,
    metric: str,
    resamples: int,
    levels: Sequence[str],
    *,
    naming: str,
    video_score: str,
    thresholds: Mapping[str, float] | None,
    definitions: str,
) -> Iterator[tuple[str, Float64[np.ndarray, " resamples"]]]:
    """The metric on resamples of the videos, by level.

    Args:
        levels: of the results.
        thresholds: from validation data, by level; a metric that needs one is skipped at a level
            without.
    """
    # Differences are paired as all rows of a column share a seed; other columns have other seeds.
    seed = zlib.crc32(column.encode())
    thresholds = thresholds or {}
    for level in levels:
        if metric.endswith("_val") and level not in thresholds:
            continue
        values = resample_metrics(
            frames,
            [metric],
            level,
            resamples,
            seed,
            naming=naming,
            video_score=video_score,
            threshold=thresholds.get(level),
            definitions=definitions,
        )
        yield level, values[metric]


def _if_sufficient(
    column: str, frames: pl.DataFrame, measured: pl.DataFrame
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yields the column and its frames if they have enough videos of each class.

    Args:
        measured: the results of these frames; empty where the metric is undefined.
    """
    for videos, real in measured.select("n_videos", "n_real_videos").head(1).iter_rows():
        if enough_videos(real, videos - real):
            yield column, frames


def _split_forgeries(
    dataset: str, frames: pl.DataFrame, measured: pl.DataFrame
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yields each forgery with enough videos, together with the real frames of its dataset.

    Args:
        measured: the results per forgery.
    """
    for (domain,), part in measured.group_by("domain", maintain_order=True):
        selected = frames.filter((pl.col("label") == 0) | (pl.col("domain") == domain))
        yield from _if_sufficient(f"{dataset}/{domain}", selected, part)


def _curve_data(frames: pl.DataFrame, rules: Mapping[str, Any]) -> CurveData:
    """The scores of one dataset's frames and videos."""
    ((_, table),) = scores_by_dataset(frames, rules["naming"])
    ranked = scores_by_level(table, rules["video_score"], rules["definitions"])
    domains = {
        str(name): part["score"].to_numpy()
        for (name,), part in table.group_by("domain", maintain_order=True)
    }
    return CurveData(ranked["video"], domains, reliability(*ranked["frame"]))
