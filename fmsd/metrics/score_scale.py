"""Scores of foreign detectors as logits: their scale, and whether a high score means fake or real.

A score of an unknown scale is no probability. Its metrics are those of its ranks alone.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

Scale = Literal["probability", "logit", "score"]
"""What a detector returns; `score` is any number whose order alone has a meaning."""

Higher = Literal["fake", "real"]
"""What a higher score means."""

SCALES: tuple[str, ...] = get_args(Scale)
HIGHER: tuple[str, ...] = get_args(Higher)

CERTAIN = 800.0
"""The logit of the probability 1, whose sigmoid is exactly 1, as that of its negative is 0."""

STEP = 2.0**-49
"""The least distance of the probabilities of two different scores without a scale.

It is some units in the last place: the order survives the map to logits and back.
"""


def as_logits(
    values: Float64[ndarray, " frames"], scale: Scale, higher: Higher
) -> Float64[ndarray, " frames"]:
    """Scores as logits of fake, in their order; NaN where a score has none.

    Args:
        values: the scores; of all datasets together where they are compared.
        scale: see `Scale`; probabilities outside of [0, 1] have no logit.
        higher: what a higher score means.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    if scale == "logit":
        logits = finite
    else:
        share = finite if scale == "probability" else _shares(finite)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(share) - np.log1p(-share)
        logits = np.clip(logits, -CERTAIN, CERTAIN)
    return -logits if higher == "real" else logits


def count_ties(
    values: Float64[ndarray, " frames"], logits: Float64[ndarray, " frames"]
) -> tuple[int, int]:
    """The number of different scores, and by how much that of their probabilities is smaller.

    Args:
        values: the scores; NaN where there is none.
        logits: of the same.
    """
    scored = ~np.isnan(logits)
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-logits[scored]))
    different = len(np.unique(values[scored]))
    return different, different - len(np.unique(probabilities))


def count_crowded(values: Float64[ndarray, " frames"]) -> int:
    """The number of different scores that an affine map alone would not tell from the next lower.

    They are nearer to it than about 4e-15 of the range of all, as where one score is 1e30.

    Args:
        values: scores without a scale; NaN where there is none.
    """
    return int((np.diff(_positions(np.unique(values[~np.isnan(values)]))) < STEP).sum())


def _shares(values: Float64[ndarray, " frames"]) -> Float64[ndarray, " frames"]:
    """Scores without a scale as probabilities from 0.25 to 0.75; NaN stays.

    An affine function of the score: scores do not tie at 0 or 1, and the mean over a video's frames
    ranks videos as the mean of their scores does. Scores that float64 would not tell apart then are
    put `STEP` apart, so that frames always are ranked as by their scores.
    """
    scored = ~np.isnan(values)
    different, place = np.unique(values[scored], return_inverse=True)
    steps = STEP * np.arange(len(different))
    share = np.maximum.accumulate(_positions(different) - steps) + steps
    result = np.full(len(values), np.nan)
    result[scored] = share[place]
    return result


def _positions(ordered: Float64[ndarray, " scores"]) -> Float64[ndarray, " scores"]:
    """Where different scores lie between the smallest, 0.25, and the largest, 0.75."""
    if len(ordered) < 2:
        return np.full(len(ordered), 0.5)
    if ordered[-1] / 2 - ordered[0] / 2 > np.finfo(np.float64).max / 2:
        ordered = ordered / 2  # whose difference is finite
    return 0.25 + 0.5 * ((ordered - ordered[0]) / (ordered[-1] - ordered[0]))
