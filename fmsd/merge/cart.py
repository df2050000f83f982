"""CART: the weight average plus truncated task vectors centred at it.

Choi et al., 2024, arXiv 2412.12153.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fmsd.linalg import SVD, truncate
from fmsd.merge.coefficients import check_coefficient_range, check_truncation
from fmsd.merge.task_vectors import Merged, Specialists, mean_weights, truncation_record
from fmsd.rounding import floor_share


@dataclass(frozen=True, slots=True)
class CART:
    """theta_avg + prior * sum_i SVD_r(theta_i - theta_avg) on matrices, theta_avg elsewhere.

    The rank is r = max(1, floor(ratio * min(rows, columns))).

    Args:
        ratio: rank of a truncated centred task vector as a share of the full rank, from 0 (rank 1)
            to 1 (the average).
        prior: factor on their sum, at least 0.
        svd: truncate by whole decompositions (`exact`), or in a Krylov space (`krylov`).
        least_energy: with `krylov`, the share of the best truncation's energy, from 0 to 1, that a
            truncation must be known to hold; below it the matrix is decomposed as a whole.
    """

    ratio: float = 0.12
    prior: float = 2.0
    svd: SVD = "exact"
    least_energy: float = 0.9

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(high=1.0, ratio=self.ratio)
        check_coefficient_range(prior=self.prior)
        check_truncation(self.svd, self.least_energy)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once, and matrices twice; records the quality of their truncation."""
        for name in specialists.names:
            merged, part = mean_weights(specialists, name), specialists.parts[name]
            record = {}
            if part.kind == "matrix":
                tasks = specialists.task_vectors(name)
                centred = part.matrices(tasks.sub_(tasks.mean(0)), stack=1)
                rank = max(1, floor_share(self.ratio, min(centred.shape[-2:])))
                top, qualities = torch.zeros(centred.shape[1:]), []
                for matrices in centred:
                    for total, matrix in zip(top, matrices, strict=True):
                        left, right, quality = truncate(matrix, rank, self.svd, self.least_energy)
                        total.addmm_(left, right)
                        qualities.append(quality)
                merged.add_(top.view(merged.shape), alpha=self.prior)
                record = truncation_record(rank, qualities)
            yield Merged(name, merged, record)
