"""Cross-AUC: the real videos of one dataset against the fakes of another one.

Y. Luo, T. Chen and D. Liu, Rethinking Cross-Domain Evaluation for Face Forgery Detection with
Semantic Fine-grained Alignment and Mixture-of-Experts, 2026, arXiv:2604.21478. An AUC within each
dataset does not notice that all scores of a dataset are shifted against those of another one; one
threshold for both then fails. Our reading of its abstract: every ordered pair of datasets, and the
mean of the pairs of two different ones. That pairs weigh equally is our choice.

Pairs share videos, so their AUCs are correlated: variances come from the placements of each video
in all of its pairs, as DeLong's do (see `fmsd.metrics.delong`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from fmsd.metrics.interval import MIN_VIDEOS

Classes = tuple[Float64[ndarray, " reals"], Float64[ndarray, " fakes"]]
"""The scores of the real and of the fake videos of a dataset."""

Weights = Float64[ndarray, "datasets datasets"]
"""The weight of each pair in a mean: row: the dataset of the reals, column: that of the fakes."""


class Estimate(NamedTuple):
    """A mean of AUCs and its variance; NaN without a pair of enough videos."""

    value: float
    variance: float


@dataclass(frozen=True)
class CrossAuc:
    """AUCs of every pair of datasets, and what their variances follow from.

    Args:
        datasets: the names.
        reals, fakes: the numbers of videos.
        matrix: row: the dataset of the reals, column: that of the fakes.
        real_covariance: of the AUCs of each dataset's reals with the fakes of two datasets, by
            the choice of these reals.
        fake_covariance: the same of each dataset's fakes with the reals of two datasets.
    """

    datasets: Sequence[str]
    reals: Int64[ndarray, " datasets"]
    fakes: Int64[ndarray, " datasets"]
    matrix: Float64[ndarray, "datasets datasets"]
    real_covariance: Float64[ndarray, "datasets datasets datasets"]
    fake_covariance: Float64[ndarray, "datasets datasets datasets"]

    @property
    def enough(self) -> Bool[ndarray, "datasets datasets"]:
        """Which pairs have at least `MIN_VIDEOS` videos of either class."""
        return np.outer(self.reals >= MIN_VIDEOS, self.fakes >= MIN_VIDEOS)

    @property
    def within(self) -> Estimate:
        """The mean of the AUCs within datasets."""
        return self.mean(np.eye(len(self.datasets)))

    @property
    def across(self) -> Estimate:
        """The mean of the AUCs of pairs of two different datasets."""
        return self.mean(1 - np.eye(len(self.datasets)))

    @property
    def pooled(self) -> Estimate:
        """The mean of the AUCs of each dataset's fakes against the reals of all datasets."""
        return self.mean(np.broadcast_to(self.reals[:, None], self.matrix.shape).astype(float))

    def pooled_of(self, place: int) -> Estimate:
        """The AUC of one dataset's fakes against the reals of all datasets."""
        weights = np.zeros_like(self.matrix)
        weights[:, place] = self.reals
        return self.mean(weights)

    def pair(self, real: int, fake: int) -> Estimate:
        """The AUC of the reals of one dataset and the fakes of another one."""
        weights = np.zeros_like(self.matrix)
        weights[real, fake] = 1
        return self.mean(weights)

    def mean(self, weights: Weights) -> Estimate:
        """A weighted mean of the pairs with enough videos."""
        weights = np.where(self.enough, weights, 0)
        if not weights.any():
            return Estimate(float("nan"), float("nan"))
        weights = weights / weights.sum()
        variance = np.einsum("ab,abc,ac->", weights, self.real_covariance, weights)
        variance += np.einsum("ab,bac,cb->", weights, self.fake_covariance, weights)
        return Estimate(float((weights * self.matrix).sum()), max(float(variance), 0.0))

    def only(self, datasets: Sequence[str]) -> "CrossAuc":
        """The same of some of the datasets."""
        at = [self.datasets.index(name) for name in datasets]
        covariances = (part[np.ix_(at, at, at)] for part in self._covariances)
        return CrossAuc(
            datasets, self.reals[at], self.fakes[at], self.matrix[np.ix_(at, at)], *covariances
        )

    @property
    def _covariances(self) -> tuple[ndarray, ndarray]:
        return self.real_covariance, self.fake_covariance


def cross_auc(datasets: Mapping[str, Classes]) -> CrossAuc:
    """The AUCs of every pair of datasets; equal scores count half.

    Args:
        datasets: by name, at least one item of each class.
    """
    reals = [np.sort(real) for real, _ in datasets.values()]
    fakes = [np.sort(fake) for _, fake in datasets.values()]
    real_covariance = [_covariance([_shares_below(real, fake) for fake in fakes]) for real in reals]
    matrix, fake_covariance = [], []
    for fake in fakes:
        shares = [_shares_below(fake, real) for real in reals]
        matrix.append([share.mean() for share in shares])
        fake_covariance.append(_covariance(shares))
    return CrossAuc(
        [*datasets],
        np.array([len(real) for real in reals]),
        np.array([len(fake) for fake in fakes]),
        np.array(matrix).T,
        np.array(real_covariance),
        np.array(fake_covariance),
    )


def mean_cross_auc(parts: Sequence[CrossAuc]) -> CrossAuc:
    """The mean of several detectors on the same videos, of the datasets that all were tested on.

    Its variances are the means of theirs, which those of the mean cannot exceed.
    """
    first = parts[0]
    datasets = [name for name in first.datasets if all(name in part.datasets for part in parts)]
    same = [part.only(datasets) for part in parts]
    matrix, real, fake = (
        np.mean([getattr(part, name) for part in same], axis=0)
        for name in ("matrix", "real_covariance", "fake_covariance")
    )
    return CrossAuc(datasets, same[0].reals, same[0].fakes, matrix, real, fake)


def sorted_auc(real: Float64[ndarray, " reals"], fake: Float64[ndarray, " fakes"]) -> float:
    """The AUC of scores, each class in rising order."""
    return float(_shares_below(fake, real).mean())


def _shares_below(
    values: Float64[ndarray, " items"], others: Float64[ndarray, " others"]
) -> Float64[ndarray, " items"]:
    """The share of others below each value, both in rising order; equal ones count half."""
    counts = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    return counts / (2 * len(others))


def _covariance(
    shares: Sequence[Float64[ndarray, " items"]],
) -> Float64[ndarray, "datasets datasets"]:
    """The covariance of means over the same items; 0 of a single one."""
    table = np.array(shares)
    count = table.shape[1]
    table -= table.mean(axis=1, keepdims=True)
    return table @ table.T / (max(count - 1, 1) * count)
