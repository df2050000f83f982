"""Predictions of all rows, read once: intervals by resampling, results per forgery, curves."""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float64

from fmsd.console import track
from fmsd.figures.curves import Scored
from fmsd.metrics.calibration import reliability
from fmsd.metrics.interval import enough_videos, percentile_interval, resample_metrics
from fmsd.metrics.table import (
    results_by_domain,
    scores_by_dataset,
    scores_by_level,
)
from fmsd.metrics.verdicts import count_verdicts
from fmsd.report.rows import Row
from fmsd.report.tables import ResampledMetrics
from fmsd.report.validation import VideoThresholds


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
            level; the mean over seeds. Tests with too few videos are left out.
        intervals: columns run, seed, dataset (the column), level, metric, low, high.
        domains: the metrics of each forgery, with run and seed.
        scores: curves of the first seed of each label, by label and dataset.
        verdicts: see `fmsd.metrics.verdicts.count_verdicts`, with run and seed; of the rows with
            validation predictions.
    """

    samples: ResampledMetrics
    intervals: pl.DataFrame
    domains: pl.DataFrame
    scores: Mapping[tuple[str, str], CurveData]
    verdicts: pl.DataFrame


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

    Raises:
        InputError: predictions are missing or damaged.
    """
    samples: dict[tuple[str, str, str], list[np.ndarray]] = {}
    intervals, domains, scores = [], [], {}
    counted, thresholds = list[pl.DataFrame](), VideoThresholds()
    tests = [(row, dataset) for row in rows for dataset in row.prediction_files]
    for row, dataset in track(tests, "Reading predictions", len(tests), "tables"):
        frames, rules = row.read_predictions(dataset), row.scoring_rules(dataset)
        seed = {"run": pl.lit(row.label), "seed": pl.lit(row.seed, pl.Int64)}
        if verdicts and (points := thresholds(row, rules["video_score"])):
            part = count_verdicts(frames, points, rules["naming"], rules["video_score"])
            counted.append(part.with_columns(**seed))
        forgeries = pl.DataFrame()
        if forgery_metrics:
            levels = row.levels_of(dataset)
            metrics = row.measurable(forgery_metrics)
            forgeries = results_by_domain(frames, **rules, metrics=metrics, levels=levels)
            domains.append(forgeries.with_columns(**seed))
        if resamples:
            parts = (
                _split_forgeries(dataset, frames, forgeries)
                if by_forgery
                else _if_sufficient(
                    dataset, frames, row.results.filter(dataset=dataset, metric=metric)
                )
            )
            for column, part in parts:
                levels = row.levels_of(dataset)
                for level, values in _resample(column, part, metric, resamples, levels, **rules):
                    samples.setdefault((row.label, column, level), []).append(values)
                    ends = percentile_interval(values)
                    intervals.append((row.label, row.seed, column, level, metric, *ends))
        if row.label in curves_of and (row.label, dataset) not in scores:
            data = _curve_data(frames, rules["naming"], rules["video_score"])
            if not row.measurable(["ece"]):
                data = replace(data, reliability=None)
            scores[row.label, dataset] = data
    return Resamples(
        {cell: np.mean(seeds, axis=0) for cell, seeds in samples.items()},
        pl.DataFrame(intervals, schema=INTERVALS_SCHEMA, orient="row"),
        pl.concat(domains, how="vertical_relaxed") if domains else pl.DataFrame(),
        scores,
        pl.concat(counted) if counted else pl.DataFrame(),
    )


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


def _curve_data(frames: pl.DataFrame, naming: str, video_score: str) -> CurveData:
    """The scores of one dataset's frames and videos."""
    ((_, table),) = scores_by_dataset(frames, naming)
    ranked = scores_by_level(table, video_score)
    domains = {
        str(name): part["score"].to_numpy()
        for (name,), part in table.group_by("domain", maintain_order=True)
    }
    return CurveData(ranked["video"], domains, reliability(*ranked["frame"]))
