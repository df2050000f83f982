"""Definitions of metrics where authors differ: ours, and those of DeepfakeBench's released code.

Z. Yan, Y. Zhang, X. Yuan, S. Lyu and B. Wu, DeepfakeBench: A Comprehensive Benchmark of Deepfake
Detection, NeurIPS 2023, arXiv 2307.01426.
"""

import math

import numpy as np
import polars as pl

from fmsd.checks import check_choice

OURS, DEEPFAKEBENCH = "fmsd", "deepfakebench"
"""Values of `data.definitions=`."""


def check_definitions(definitions: str) -> None:
    """Checks the value of `data.definitions=`."""
    check_choice("data.definitions", definitions, (OURS, DEEPFAKEBENCH))


def probability_threshold(definitions: str) -> float:
    """The lowest probability that `acc` and `bacc` count as fake.

    It is 0.5 itself, or the next larger number where a probability of 0.5 counts as real.
    """
    check_definitions(definitions)
    return 0.5 if definitions == OURS else math.nextafter(0.5, 1)


def mean_in_order(frames: pl.DataFrame) -> pl.DataFrame:
    """One row per video: id, label (the lowest of its frames), and the mean `score`.

    The scores are added one by one in the order of the frames, so that two videos tie exactly
    where they tie in DeepfakeBench.
    """
    videos = frames.group_by("video", maintain_order=True).agg(
        pl.col("label").min(), pl.len().alias("count")
    )
    numbers = frames.select("video").join(
        videos.select("video").with_row_index("number"),
        on="video",
        how="left",
        maintain_order="left",
    )["number"]
    sums = np.bincount(numbers.to_numpy(), frames["score"].to_numpy(), videos.height)
    return videos.select("video", "label", score=pl.Series(sums) / pl.col("count"))
