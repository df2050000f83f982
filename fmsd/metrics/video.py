"""Scores of videos, aggregated from the probabilities of their frames."""

import re
from collections.abc import Callable, Mapping

import polars as pl

from fmsd.errors import InputError
from fmsd.metrics.definitions import DEEPFAKEBENCH, OURS, mean_in_order


def exact_mean(scores: pl.Expr) -> pl.Expr:
    """The mean of scores; where all are equal, that very score, whatever their number.

    A sum of equal numbers, divided by their number, may differ from them in its last bit, and
    videos of the same image would not tie.
    """
    lowest = scores.min()
    return lowest + (scores - lowest).mean()


AGGREGATIONS: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "mean": exact_mean,
    "median": pl.Expr.median,
    "max": pl.Expr.max,
}
"""Aggregations by name; `topK`, the mean of the K highest, is one more."""


def aggregate_videos(
    frames: pl.DataFrame, score: str = "mean", definitions: str = OURS
) -> pl.DataFrame:
    """One row per video: id, label and aggregated `score`.

    An id with frames of both labels, as `group_by_folder` may make them, counts as real.

    Args:
        frames: columns video, label and score; where `filled` (see `fmsd.metrics.coverage.cover`)
            is true, a frame counts only if its video has no others.
        score: `mean`, `median`, `max`, or `topK` such as `top5`, the mean of the K highest (of all
            frames where there are fewer).
        definitions: of the `mean`, see `fmsd.metrics.definitions.mean_in_order`.

    Raises:
        InputError: an unknown aggregation.
    """
    if "filled" in frames.columns:
        only = pl.col("filled").all().over("video")
        frames = frames.filter(~pl.col("filled") | only)
    if score == "mean" and definitions == DEEPFAKEBENCH:
        return mean_in_order(frames)
    return frames.group_by("video", maintain_order=True).agg(
        pl.col("label").min(), aggregation(score)(pl.col("score")).alias("score")
    )


def aggregation(score: str) -> Callable[[pl.Expr], pl.Expr]:
    """The aggregation of that name.

    Raises:
        InputError: an unknown name.
    """
    if highest := re.fullmatch(r"top([1-9]\d*)", score):
        return lambda frames: exact_mean(frames.top_k(int(highest[1])))
    if score not in AGGREGATIONS:
        raise InputError(
            f"data.video_score={score} is unknown",
            f"choose one of {', '.join(AGGREGATIONS)}, or topK with a number for K, such as top5",
        )
    return AGGREGATIONS[score]


def group_by_folder(frames: pl.DataFrame) -> pl.DataFrame:
    """Replaces video ids by their last part, as DeepfakeBench groups frames.

    Equal folder names in several manipulations become one video: the 700 test videos of
    FaceForensics++ become 280. Use it to compare with results computed in this way.
    """
    return frames.with_columns(pl.col("video").str.extract(r"([^/]+)$"))
