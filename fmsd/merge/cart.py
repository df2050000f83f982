"""CART: weight averaging and the top of what it leaves out (Choi et al., 2024, arXiv 2412.12153)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fmsd.linalg import SVD, truncated
from fmsd.merge.task_vectors import (
    Merged,
    Specialists,
    check_truncation,
    in_range,
    mean,
    truncation_record,
)
from fmsd.shares import floor_share


@dataclass(frozen=True, slots=True)
class CART:
    """theta_avg + prior * sum_i SVD_r(theta_i - theta_avg) on matrices, r = max(1, floor(ratio * min(rows, columns))); else theta_avg.

    Args:
        ratio: rank that is kept of each centred task vector, as a share of the full rank, from 0
            (rank 1) to 1 (the average).
        prior: factor on their sum, at least 0.
        svd: truncate by whole decompositions (`exact`), or, where that is good enough, in a Krylov
            space (`krylov`).
        least_energy: share of the best truncation's energy that one in a Krylov space must be known
            to hold, from 0 to 1; below it the matrix is decomposed as a whole.
    """

    ratio: float = 0.12
    prior: float = 2.0
    svd: SVD = "exact"
    least_energy: float = 0.9

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(high=1.0, ratio=self.ratio)
        in_range(prior=self.prior)
        check_truncation(self.svd, self.least_energy)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once, and again for matrices; yields with these how well they are approximated."""
        for name in specialists.names:
            merged, part, record = mean(specialists, name), specialists.parts[name], {}
            if part.kind == "matrix":
                tasks = specialists.tasks(name)
                centred = part.matrices(tasks.sub_(tasks.mean(0)), stack=1)
                rank = max(1, floor_share(self.ratio, min(centred.shape[-2:])))
                top, found = torch.zeros(centred.shape[1:]), []
                for matrices in centred:
                    for total, matrix in zip(top, matrices, strict=True):
                        left, right, quality = truncated(matrix, rank, self.svd, self.least_energy)
                        total.addmm_(left, right)
                        found.append(quality)
                merged.add_(top.view(merged.shape), alpha=self.prior)
                record = truncation_record(rank, found)
            yield Merged(name, merged, record)
