"""Definitions of metrics where authors differ: ours, and those of DeepfakeBench's released code.

Z. Yan, Y. Zhang, X. Yuan, S. Lyu and B. Wu, DeepfakeBench: A Comprehensive Benchmark of Deepfake
Detection, NeurIPS 2023, arXiv 2307.01426.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import torch

from fmsd.checks import check_choice
from fmsd.metrics.ranking import CURVE_METRICS, Curve, CurveValues

OURS, DEEPFAKEBENCH = "fmsd", "deepfakebench"
"""Values of `data.definitions=`."""


def check_definitions(definitions: str) -> None:
    """Checks the value of `data.definitions=`."""
    check_choice("data.definitions", definitions, (OURS, DEEPFAKEBENCH))


def curve_metrics(definitions: str) -> Mapping[str, Callable[[Curve], CurveValues]]:
    """The metrics that are computed from ROC curves, by short name."""
    check_definitions(definitions)
    if definitions == OURS:
        return CURVE_METRICS
    return {**CURVE_METRICS, "eer": curve_nearest_error_rate}


def probability_threshold(definitions: str) -> float:
    """The lowest probability that `acc` and `bacc` count as fake.

    It is 0.5 itself, or the next larger number where a probability of 0.5 counts as real.
    """
    check_definitions(definitions)
    return 0.5 if definitions == OURS else math.nextafter(0.5, 1)


def curve_nearest_error_rate(curve: Curve) -> CurveValues:
    """The FPR at the point of each curve where FPR and FNR are closest, without interpolation.

    Of several such points it is the one with the highest threshold. As in scikit-learn's
    `roc_curve`, a point between two equal steps is no point of the curve.
    """
    reals, fakes = curve.false_positives.diff(), curve.true_positives.diff()
    moves, count = (reals != 0) | (fakes != 0), reals.shape[-1]
    place = torch.where(moves, torch.arange(count), count)
    following = torch.cat([place[..., 1:], torch.full_like(place[..., :1], count)], -1)
    following = following.flip(-1).cummin(-1).values.flip(-1)  # the next step that moves
    turns = moves.cumsum(-1) == 1
    for steps in (reals, fakes):
        after = torch.cat([steps, torch.full_like(steps[..., :1], -1)], -1)
        turns = turns | (after.gather(-1, following) != steps)
    kept = torch.cat([torch.ones_like(moves[..., :1]), moves & turns], -1)
    rate = curve.false_positive_rate
    gap = ((1 - curve.true_positive_rate) - rate).abs().masked_fill(~kept, torch.inf)
    return rate.gather(-1, gap.argmin(-1, keepdim=True)).squeeze(-1)


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
