"""What the predictions of many runs tell beyond their metrics: intervals, forgeries and curves, read once."""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float64

from fmsd.console import counted
from fmsd.errors import InputError
from fmsd.figures.curves import Scored
from fmsd.metrics.calibration import reliability
from fmsd.metrics.interval import enough_videos, percentile_interval, resample_metrics
from fmsd.metrics.table import (
    LEVELS,
    compute_results,
    results_by_domain,
    scores_by_dataset,
    scores_by_level,
)
from fmsd.report.rows import Trial
from fmsd.report.tables import Samples


@dataclass(frozen=True)
class Scores:
    """One run on one dataset.

    Args:
        videos: score and label of every video.
        domains: the scores of each domain's frames.
        reliability: of the frames.
    """

    videos: Scored
    domains: Mapping[str, Float64[np.ndarray, " frames"]]
    reliability: pl.DataFrame


@dataclass(frozen=True)
class Evidence:
    """What the predictions of all trials tell.

    Args:
        samples: a metric on resamples, by row, column (dataset, or forgery as DATASET/DOMAIN) and
            level; of several seeds the mean. None of tests with too few videos.
        intervals: run, seed, dataset (the column), level, metric, low and high.
        domains: the metrics of each forgery with run and seed.
        scores: of the first seed of each row, by row and dataset.
        reals: run, seed, dataset and the number of its real videos.
    """

    samples: Samples
    intervals: pl.DataFrame
    domains: pl.DataFrame
    scores: Mapping[tuple[str, str], Scores]
    reals: pl.DataFrame


REALS = {"run": pl.String, "seed": pl.Int64, "dataset": pl.String, "n_real_videos": pl.Int64}
INTERVALS = {
    "run": pl.String,
    "seed": pl.Int64,
    "dataset": pl.String,
    "level": pl.String,
    "metric": pl.String,
    "low": pl.Float64,
    "high": pl.Float64,
}


def gathered(
    trials: Sequence[Trial],
    metric: str,
    resamples: int,
    pictured: Collection[str] | None = (),
    forgeries: bool = False,
) -> Evidence:
    """Reads the predictions of all trials, each once.

    Args:
        metric: the one to have intervals of.
        resamples: 0 for no intervals.
        pictured: the rows to have curves of, and forgeries only of the metric; None for neither
            curves nor forgeries.
        forgeries: resample each forgery with the reals of its dataset, instead of whole datasets.

    Raises:
        InputError: predictions that cannot be used, or that the numbers do not follow from.
    """
    samples: dict[tuple[str, str, str], list[np.ndarray]] = {}
    intervals, domains, scores, reals = [], [], {}, []
    work = [(trial, dataset) for trial in trials for dataset in trial.places]
    for trial, dataset in counted(work, "Reading predictions", len(work), "tables"):
        frames, rules = trial.predictions(dataset), trial.rules(dataset)
        whole = compute_results(frames, "", **rules, metrics=[metric])
        _check(trial, dataset, whole)
        reals += [(trial.label, trial.seed, dataset, count) for count in whole["n_real_videos"][:1]]
        apart = (
            pl.DataFrame()
            if pictured is None
            else results_by_domain(frames, **rules, metrics=[metric] if pictured else None)
        )
        thresholds = rules["thresholds"] or {}
        grouped = {"naming": rules["naming"], "video_score": rules["video_score"]}
        for column, part in (
            (
                _by_forgery(dataset, frames, apart)
                if forgeries
                else _if_enough(dataset, frames, whole)
            )
            if resamples
            else ()
        ):
            for level in LEVELS:
                if metric.endswith("_val") and level not in thresholds:
                    continue
                seed = zlib.crc32(
                    column.encode()
                )  # equal for all rows, so that differences are paired; another for other videos
                found = resample_metrics(
                    part,
                    [metric],
                    level,
                    resamples,
                    seed,
                    **grouped,
                    threshold=thresholds.get(level),
                )[metric]
                samples.setdefault((trial.label, column, level), []).append(found)
                intervals.append(
                    (trial.label, trial.seed, column, level, metric, *percentile_interval(found))
                )
        if pictured is None:
            continue
        domains.append(
            apart.with_columns(run=pl.lit(trial.label), seed=pl.lit(trial.seed, pl.Int64))
        )
        if trial.label in pictured and (trial.label, dataset) not in scores:
            scores[trial.label, dataset] = _scores(frames, **grouped)
    return Evidence(
        {place: np.mean(found, axis=0) for place, found in samples.items()},
        pl.DataFrame(intervals, schema=INTERVALS, orient="row"),
        pl.concat(domains, how="vertical_relaxed") if domains else pl.DataFrame(),
        scores,
        pl.DataFrame(reals, schema=REALS, orient="row"),
    )


def _if_enough(
    column: str, frames: pl.DataFrame, measured: pl.DataFrame
) -> Iterator[tuple[str, pl.DataFrame]]:
    """A column and the frames that it is resampled from, where they are of enough videos.

    Args:
        measured: the results of these frames; none where the metric does not exist.
    """
    for videos, real in measured.select("n_videos", "n_real_videos").head(1).iter_rows():
        if enough_videos(real, videos - real):
            yield column, frames


def _by_forgery(
    dataset: str, frames: pl.DataFrame, measured: pl.DataFrame
) -> Iterator[tuple[str, pl.DataFrame]]:
    """The same of each forgery with the reals of its dataset."""
    for (domain,), own in measured.group_by("domain", maintain_order=True):
        yield from _if_enough(
            f"{dataset}/{domain}",
            frames.filter((pl.col("label") == 0) | (pl.col("domain") == domain)),
            own,
        )


def _check(trial: Trial, dataset: str, computed: pl.DataFrame) -> None:
    """Refuses predictions that a trial's numbers do not follow from."""
    computed = computed.cast(
        {"level": pl.String, "metric": pl.String, "value": pl.Float64}
    )  # where there are no thresholds it may be empty
    both = trial.results.filter(dataset=dataset).join(
        computed, on=["level", "metric"], suffix="_computed"
    )
    if not ((both["value"] - both["value_computed"]).abs() <= 1e-6).all():
        level, metric, value, own = both.select("level", "metric", "value", "value_computed").row(0)
        raise InputError(
            f"{trial.places[dataset]} does not hold the predictions that the numbers beside it "
            "follow from "
            f"({metric} per {level} {own:.6f}, not {value:.6f})",
            "put them back, or test the run again",
        )


def _scores(frames: pl.DataFrame, naming: str, video_score: str) -> Scores:
    """What curves are drawn of."""
    ((_, table),) = scores_by_dataset(frames, naming)
    ranked = scores_by_level(table, video_score)
    domains = {
        str(name): own["score"].to_numpy()
        for (name,), own in table.group_by("domain", maintain_order=True)
    }
    return Scores(ranked["video"], domains, reliability(*ranked["frame"]))
