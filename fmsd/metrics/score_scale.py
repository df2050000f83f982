"""Scores of foreign detectors as logits: their scale, and whether a high score means fake or real.

A score of an unknown scale is no probability. Its metrics are those of its ranks alone.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from fmsd.metrics.ranking import CURVE_METRICS

Scale = Literal["probability", "logit", "score"]
"""What a detector returns; `score` is any number whose order alone has a meaning."""

Higher = Literal["fake", "real"]
"""What a higher score means."""

SCALES: tuple[str, ...] = get_args(Scale)
HIGHER: tuple[str, ...] = get_args(Higher)

CERTAIN = 800.0
"""The logit of the probability 1, whose sigmoid is exactly 1, as that of its negative is 0."""


SATURATED = 36.8
"""The logit from which on the probability is 1 in float64."""


def scale_metrics(scale: str) -> list[str] | None:
    """The metrics that scores of a scale have; None for all.

    Scores of an unknown scale have those of ranks: accuracies at 0.5, Brier score and calibration
    error would be values of the map to logits.
    """
    return list(CURVE_METRICS) if scale == "score" else None


def score_bounds(values: Sequence[Float64[ndarray, " _"]]) -> tuple[float, float] | None:
    """The smallest and the largest finite score of all datasets; None if there is none."""
    finite = np.concatenate([each[np.isfinite(each)] for each in values] or [np.empty(0)])
    return (float(finite.min()), float(finite.max())) if len(finite) else None


def count_tied(logits: Float64[ndarray, " frames"]) -> int:
    """The number of different logits whose probabilities tie at 1, less one.

    Args:
        logits: of fake; NaN where there is none.
    """
    return max(len(np.unique(logits[logits > SATURATED])) - 1, 0)


def as_logits(
    values: Float64[ndarray, " frames"],
    scale: Scale,
    higher: Higher,
    bounds: tuple[float, float] | None = None,
) -> Float64[ndarray, " frames"]:
    """Scores as logits of fake, in their order; NaN where a score has none.

    The sigmoid of the logit of a `score` is an affine function of the score, with values from 0.25
    to 0.75: scores do not tie at 0 or 1, and the mean over a video's frames ranks videos as the
    mean of their scores does.

    Args:
        values: the scores.
        scale: see `Scale`; probabilities outside of [0, 1] have no logit.
        higher: what a higher score means.
        bounds: of `score`: see `score_bounds`.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    if scale == "logit":
        logits = finite
    else:
        share = finite if scale == "probability" else 0.25 + 0.5 * _position(finite, bounds)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(share) - np.log1p(-share)
        logits = np.clip(logits, -CERTAIN, CERTAIN)
    return -logits if higher == "real" else logits


def _position(
    values: Float64[ndarray, " frames"], bounds: tuple[float, float] | None
) -> Float64[ndarray, " frames"]:
    """Where scores lie between the smallest, 0, and the largest, 1; 0.5 if these are equal."""
    low, high = bounds or score_bounds([values]) or (0.0, 0.0)
    if low == high:
        return np.where(np.isnan(values), np.nan, 0.5)
    return (values / 2 - low / 2) / (high / 2 - low / 2)  # halves: their difference is finite
