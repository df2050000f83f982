"""DeLong's variance of an AUC and of the difference of two paired AUCs; nothing is resampled.

E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Comparing the Areas under Two or More
Correlated Receiver Operating Characteristic Curves: A Nonparametric Approach, Biometrics, 1988. The
placements come from midranks, in O(n log n) instead of O(reals x fakes): X. Sun and W. Xu, Fast
Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated Receiver Operating
Characteristic Curves, IEEE Signal Processing Letters, 2014.

Items must be independent: use videos, not frames, which are alike within a video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from fmsd.metrics.score_meaning import to_logit, to_probability

NORMAL_95 = 1.959963984540054
"""Standard deviations on either side that hold 95 % of a normal distribution."""


class AucDifference(NamedTuple):
    """A difference of AUCs, its standard error, and the p-value of a two-sided test."""

    value: float
    error: float
    p: float


@dataclass(frozen=True)
class Placements:
    """How each item is placed among those of the other class; equal scores count half.

    Args:
        real: of each real item, the share of fakes that score above it.
        fake: of each fake item, the share of reals that score below it.
    """

    real: Float[ndarray, " reals"]
    fake: Float[ndarray, " fakes"]

    @property
    def auc(self) -> float:
        """The mean placement, which is the area under the ROC curve."""
        return float(self.fake.mean(dtype=np.float64))

    @property
    def variance(self) -> float:
        """DeLong's variance of the AUC."""
        return covariance(self, self)

    def __sub__(self, other: "Placements") -> "Placements":
        """The differences of placements of the same items."""
        return Placements(self.real - other.real, self.fake - other.fake)


def placements(real: Float64[ndarray, " reals"], fake: Float64[ndarray, " fakes"]) -> Placements:
    """The placements of scores, by midranks.

    Args:
        real, fake: scores of at least one item of each class.
    """
    ranks = midranks(np.concatenate([real, fake]))
    reals, fakes = len(real), len(fake)
    return Placements(
        1 - (ranks[:reals] - midranks(real)) / fakes,
        (ranks[reals:] - midranks(fake)) / reals,
    )


def midranks(values: Float64[ndarray, " items"]) -> Float64[ndarray, " items"]:
    """Ranks from 1; equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks


def covariance(one: Placements, other: Placements) -> float:
    """The covariance of two AUCs of the same items, in the same order.

    NaN with fewer than two items of a class.
    """
    total = 0.0
    for own, others in ((one.real, other.real), (one.fake, other.fake)):
        count = len(own)
        if count < 2:
            return math.nan
        parts = (values - values.mean(dtype=np.float64) for values in (own, others))
        total += float(np.multiply(*parts).sum(dtype=np.float64)) / (count - 1) / count
    return total


def mean_placements(parts: Sequence[Placements]) -> Placements:
    """The placements whose AUC is the mean of the AUCs of several detectors on the same items."""
    return Placements(
        np.mean([part.real for part in parts], axis=0),
        np.mean([part.fake for part in parts], axis=0),
    )


def auc_interval(auc: float, variance: float) -> tuple[float, float]:
    """The 95 % interval of an AUC, symmetric in its logit, so that it stays within [0, 1].

    M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction, 2003.
    An AUC of 0 or 1 has the variance 0, and the interval is that point, whatever the number of
    items.
    """
    if auc in (0, 1):
        return auc, auc
    half = NORMAL_95 * math.sqrt(variance) / (auc * (1 - auc))
    low, high = to_probability(to_logit(np.array([auc])) + np.array([-half, half]))
    return float(low), float(high)


def paired_test(pairs: Sequence[tuple[Placements, Placements]]) -> AucDifference:
    """Tests whether two detectors differ in their AUC, or in the mean of it over datasets.

    Args:
        pairs: of each dataset, the placements of the same items by both detectors. The datasets
            have no items in common.

    Returns:
        The first AUC minus the second one. p is 1 where all placements are equal, and NaN where the
        AUCs differ and have no variance: there is nothing to test by.
    """
    differences = [one - other for one, other in pairs]
    value = float(np.mean([difference.auc for difference in differences]))
    variance = sum(difference.variance for difference in differences) / len(pairs) ** 2
    error = math.sqrt(max(variance, 0.0)) if not math.isnan(variance) else math.nan
    if error == 0:
        return AucDifference(value, error, 1.0 if value == 0 else math.nan)
    return AucDifference(value, error, math.erfc(abs(value) / error / math.sqrt(2)))
