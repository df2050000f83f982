"""Cross-AUC: the real videos of one dataset against the fakes of another one.

Y. Luo, T. Chen and D. Liu, Rethinking Cross-Domain Evaluation for Face Forgery Detection with
Semantic Fine-grained Alignment and Mixture-of-Experts, 2026, arXiv:2604.21478. An AUC within each
dataset does not notice that all scores of a dataset are shifted against those of another one; one
threshold for both then fails. Our reading of its abstract: every ordered pair of datasets, and the
mean of the pairs of two different ones. That pairs weigh equally is our choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

Classes = tuple[Float64[ndarray, " reals"], Float64[ndarray, " fakes"]]
"""The scores of the real and of the fake videos of a dataset."""


@dataclass(frozen=True)
class CrossAuc:
    """AUCs of every pair of datasets.

    Args:
        matrix: row: the dataset of the reals, column: that of the fakes.
        pooled: the reals of all datasets together against the fakes of each one.
    """

    matrix: Float64[ndarray, "datasets datasets"]
    pooled: Float64[ndarray, " datasets"]

    @property
    def within(self) -> float:
        """The mean of the AUCs within datasets."""
        return float(self.matrix.diagonal().mean())

    @property
    def across(self) -> float:
        """The mean of the AUCs of pairs of two different datasets; NaN with one dataset."""
        apart = ~np.eye(len(self.matrix), dtype=bool)
        return float(self.matrix[apart].mean()) if apart.any() else float("nan")


def cross_auc(datasets: Mapping[str, Classes]) -> CrossAuc:
    """The AUCs of every pair of datasets; equal scores count half.

    Args:
        datasets: by name, at least one item of each class.
    """
    reals = [np.sort(real) for real, _ in datasets.values()]
    fakes = [np.sort(fake) for _, fake in datasets.values()]
    matrix = np.array([[sorted_auc(real, fake) for fake in fakes] for real in reals])
    sizes = np.array([len(real) for real in reals])
    return CrossAuc(matrix, sizes @ matrix / sizes.sum())


def sorted_auc(real: Float64[ndarray, " reals"], fake: Float64[ndarray, " fakes"]) -> float:
    """The AUC of scores, each class in rising order."""
    below = np.searchsorted(real, fake, "left").sum(dtype=np.int64)
    to = np.searchsorted(real, fake, "right").sum(dtype=np.int64)
    return float(below + to) / (2 * len(real) * len(fake))
