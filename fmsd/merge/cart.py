"""CART: weight averaging and the top of what it leaves out (Choi et al., 2024, arXiv 2412.12153)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fmsd.linalg import truncated
from fmsd.merge.delta import Merged, Specialists, in_range, mean
from fmsd.shares import rounded_down


@dataclass(frozen=True, slots=True)
class CART:
    """theta_avg + prior * sum_i SVD_r(theta_i - theta_avg) on matrices, r = max(1, floor(ratio * min(rows, columns))); else theta_avg.

    Args:
        ratio: rank that is kept of each centred task vector, as a share of the full rank, from 0 (rank 1) to 1 (the average).
        prior: factor on their sum, at least 0.
    """

    ratio: float = 0.12
    prior: float = 2.0

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(high=1.0, ratio=self.ratio)
        in_range(prior=self.prior)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once, and again for matrices."""
        for name in specialists.names:
            merged, part = mean(specialists, name), specialists.parts[name]
            if part.kind == "matrix":
                tasks = specialists.tasks(name)
                centred = part.matrices(tasks.sub_(tasks.mean(0)), stack=1)
                rank = max(1, rounded_down(self.ratio, min(centred.shape[-2:])))
                top = torch.zeros(centred.shape[1:])
                for matrices in centred:
                    for total, matrix in zip(top, matrices, strict=True):
                        total.addmm_(*truncated(matrix, rank))
                merged.add_(top.view(merged.shape), alpha=self.prior)
            yield Merged(name, merged)
