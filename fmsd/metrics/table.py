"""Result tables, computed from predictions alone.

Predictions are a table with the manifest's columns and `logit`, a row per frame. Results are tidy:
one value per row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import polars as pl
import torch

from fmsd.errors import InputError
from fmsd.metrics.coverage import COUNTS, EXCLUDE, complete_counts, counts_by_level, cover
from fmsd.metrics.definitions import OURS, probability_threshold
from fmsd.metrics.nearest_error_rate import curve_metrics
from fmsd.metrics.ranking import (
    DECISION_METRICS,
    METRICS,
    THRESHOLD_METRICS,
    Labels,
    Scores,
    check_metrics,
    roc_curve,
)
from fmsd.metrics.video import aggregate_videos, group_by_folder

COLUMNS = (
    "dataset",
    "level",
    "metric",
    "value",
    "n_frames",
    "n_videos",
    "n_real_videos",
    *COUNTS,
    "selection",
    "protocol",
)
DOMAIN_COLUMNS = (
    "dataset",
    "domain",
    "level",
    "metric",
    "value",
    "n_frames",
    "n_videos",
    "n_real_videos",
)
LEVELS = ("frame", "video")


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Keeps torch to one thread inside the block.

    The steps are so short that, beside other work, threads would wait for each other 20 times as
    long as they compute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_scores(predictions: pl.DataFrame) -> pl.DataFrame:
    """Adds `score`, the probability of fake in float64, in which confident frames do not tie at 1.

    Raises:
        InputError: logits that are null or not finite, which a sort would rank all the same.
    """
    broken = predictions.filter(~pl.col("logit").is_finite().fill_null(value=False))["dataset"]
    if len(broken):
        counts = " and ".join(
            f"{count} of {dataset}" for dataset, count in sorted(broken.value_counts().rows())
        )
        raise InputError(
            f"Among the logits {counts} are null or not finite, so no metric exists",
            "test the run again",
        )
    return predictions.with_columns(score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp()))


@single_torch_thread()
def compute_results(
    predictions: pl.DataFrame,
    selection: str,
    protocol: str = "fmsd",
    naming: str = "id",
    video_score: str = "mean",
    thresholds: Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = None,
    coverage: str | None = EXCLUDE,
    levels: Sequence[str] = LEVELS,
    definitions: str = OURS,
) -> pl.DataFrame:
    """The metrics of every dataset at frame and video level.

    Args:
        predictions: a row per expected frame, see `fmsd.metrics.coverage`.
        selection: the rule by which weights were selected, written into every row.
        protocol: the rules by which frames were chosen and grouped, written into every row.
        naming: how frames are grouped into videos: by `id`, or by its last part (`folder`).
        video_score: see `fmsd.metrics.video.aggregate_videos`.
        thresholds: by level, those chosen on validation data; None leaves out their metrics.
        metrics: names in `fmsd.metrics.ranking.METRICS` and `THRESHOLD_METRICS`; None for all.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.
        levels: the levels of the results; `video` alone where scores are of whole videos.
        definitions: of the metrics, see `fmsd.metrics.definitions`.

    Raises:
        InputError: a dataset with one class only, logits that are not finite, frames without a
            score that the policy refuses, an unknown video score or metric.
    """
    rows = []
    outcomes = _counted_outcomes(predictions, naming)
    for dataset, frames in scores_by_dataset(cover(predictions, coverage), naming):
        ranked = scores_by_level(frames, video_score, definitions)
        sizes = _sizes(ranked)
        complete = {level: complete_counts(len(items[0])) for level, items in ranked.items()}
        counts = outcomes.get(dataset, complete)
        rows += [
            (dataset, *line, *sizes, *counts[line[0]].values(), selection, protocol)
            for line in _measured(
                {level: ranked[level] for level in levels}, thresholds, metrics, definitions
            )
        ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


@single_torch_thread()
def results_by_domain(
    predictions: pl.DataFrame,
    naming: str = "id",
    video_score: str = "mean",
    thresholds: Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = None,
    levels: Sequence[str] = LEVELS,
    definitions: str = OURS,
) -> pl.DataFrame:
    """The metrics of each forgery domain against all real frames of its dataset, at both levels.

    `n_frames` and `n_videos` count the fakes of the domain and all real frames, `n_real_videos` the
    real videos alone. Arguments and errors are those of `compute_results`.
    """
    rows = []
    for dataset, frames in scores_by_dataset(predictions, naming):
        needed = frames.select("dataset", "domain", "video", "label", "score")
        reals, fakes = needed.filter(label=0), needed.filter(label=1)
        for (domain,), forged in fakes.group_by("domain", maintain_order=True):
            ranked = scores_by_level(pl.concat([reals, forged]), video_score, definitions)
            sizes = _sizes(ranked)
            chosen = {level: ranked[level] for level in levels}
            rows += [
                (dataset, domain, *line, *sizes)
                for line in _measured(chosen, thresholds, metrics, definitions)
            ]
    return pl.DataFrame(rows, schema=DOMAIN_COLUMNS, orient="row")


def as_one_dataset(validation: pl.DataFrame) -> pl.DataFrame:
    """Validation predictions under one dataset name, so that all are ranked together."""
    return validation.with_columns(dataset=pl.lit("the validation data"))


def scores_by_dataset(predictions: pl.DataFrame, naming: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yields each dataset's name and its frames with scores.

    Args:
        naming: see `compute_results`.

    Raises:
        InputError: a dataset of one class only, which cannot be ranked, or logits that are not
            finite.
    """
    scored = with_scores(predictions)
    single = scored["dataset"].n_unique() == 1  # a partition would copy all frames
    parts = [scored] if single else scored.partition_by("dataset", maintain_order=True)
    for frames in parts:
        dataset = frames["dataset"][0]
        if frames["label"].n_unique() != 2:
            only = "fake" if frames["label"][0] else "real"
            raise InputError(
                f"The test split of {dataset} has only {only} frames, so no AUC exists",
                "test on real and fake frames together",
            )
        yield str(dataset), group_by_folder(frames) if naming == "folder" else frames


def scores_by_level(
    frames: pl.DataFrame, video_score: str, definitions: str = OURS
) -> dict[str, tuple[Scores, Labels]]:
    """Scores and labels of a dataset's frames and of its videos, by level.

    Raises:
        InputError: no video is fake, or an unknown video score.
    """
    videos = aggregate_videos(frames, video_score, definitions)
    if not videos["label"].max():
        raise InputError(
            f"Every fake video ranked on {frames['dataset'][0]} bears the name of a real one, so "
            "by name alone none is left (data.naming=folder)",
            "set data.naming=id",
        )
    return {
        level: (
            torch.from_numpy(table["score"].to_numpy(writable=True)),
            torch.from_numpy(table["label"].cast(pl.Int64).to_numpy(writable=True)),
        )
        for level, table in zip(LEVELS, (frames, videos), strict=True)
    }


def _counted_outcomes(
    predictions: pl.DataFrame, naming: str
) -> dict[str, dict[str, dict[str, int]]]:
    """The counts of outcomes by dataset and level; empty where every frame has a score."""
    if "outcome" not in predictions.columns:
        return {}
    grouped = predictions.select("dataset", "video", "outcome")
    if naming == "folder":
        grouped = group_by_folder(grouped)
    return {
        str(dataset): counts_by_level(frames)
        for (dataset,), frames in grouped.group_by("dataset", maintain_order=True)
    }


def _measured(
    ranked: dict[str, tuple[Scores, Labels]],
    thresholds: Mapping[str, float] | None,
    metrics: Sequence[str] | None,
    definitions: str,
) -> Iterator[tuple[str, str, float]]:
    """Yields level, metric and value; scores are sorted once per level."""
    wanted = check_metrics(metrics) if metrics is not None else [*METRICS, *THRESHOLD_METRICS]
    of_curve, even = curve_metrics(definitions), probability_threshold(definitions)
    for level, items in ranked.items():
        curve = roc_curve(*items) if not of_curve.keys().isdisjoint(wanted) else None
        for name in wanted:
            if name in THRESHOLD_METRICS:
                if thresholds is not None:
                    yield level, name, THRESHOLD_METRICS[name](*items, thresholds[level])
            elif curve is not None and name in of_curve:
                yield level, name, float(of_curve[name](curve))
            elif name in DECISION_METRICS:
                yield level, name, DECISION_METRICS[name](*items, even)
            else:
                yield level, name, METRICS[name](*items)


def _sizes(ranked: dict[str, tuple[Scores, Labels]]) -> list[int]:
    """Number of frames, of videos and of real videos."""
    return [*(len(ranked[level][0]) for level in LEVELS), int((ranked["video"][1] == 0).sum())]
