"""From frames to videos: a video's score is that of its frames' probabilities taken together."""

import re
from collections.abc import Callable, Mapping

import polars as pl

from fmsd.errors import InputError

AGGREGATIONS: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "mean": pl.Expr.mean,
    "median": pl.Expr.median,
    "max": pl.Expr.max,
}
"""What a video's score may be, beside the mean of its highest few."""


def aggregate_videos(frames: pl.DataFrame, score: str = "mean") -> pl.DataFrame:
    """One row per video: its id, its label and its `score`. Needs the columns video, label and score.

    Where frames of both labels bear one id, the video counts as real: only `group_by_folder` makes such
    ids.

    Args:
        score: `mean`, `median`, `max`, or the mean of the highest so many (`top5`), which is that
            of all frames where there are fewer.

    Raises:
        InputError: another score.
    """
    return frames.group_by("video", maintain_order=True).agg(
        pl.col("label").min(), aggregation(score)(pl.col("score")).alias("score")
    )


def aggregation(score: str) -> Callable[[pl.Expr], pl.Expr]:
    """How frames' scores become a video's.

    Raises:
        InputError: the name is unknown.
    """
    if highest := re.fullmatch(r"top([1-9]\d*)", score):
        return lambda frames: frames.top_k(int(highest[1])).mean()
    if score not in AGGREGATIONS:
        raise InputError(
            f"data.video_score={score} is unknown",
            f"choose one of {', '.join(AGGREGATIONS)}, or topK with a number for K, such as top5",
        )
    return AGGREGATIONS[score]


def group_by_folder(frames: pl.DataFrame) -> pl.DataFrame:
    """The frames with their video's last name in place of its id, as the popular benchmark groups them.

    Equal names in several manipulations become one video: the 700 test videos of FaceForensics++
    become 280. For comparison with numbers made so.
    """
    return frames.with_columns(pl.col("video").str.extract(r"([^/]+)$"))
