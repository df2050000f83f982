"""Iso-C: isotropic merging in the common subspace (Marczak et al., ICML 2025, arXiv 2502.04959)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fmsd.linalg import SMALL, Factors
from fmsd.merge.coefficients import check_coefficient_range
from fmsd.merge.task_vectors import Merged, Specialists


@dataclass(frozen=True, slots=True)
class IsoC:
    """theta_0 + scale * mean(s) U V^T on matrices, with U diag(s) V^T = sum_i tau_i.

    Other tensors become theta_0 + scale * mean_i tau_i.

    Args:
        scale: factor on the merged task vector, at least 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(scale=self.scale)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once and decomposes every matrix."""
        for name in specialists.names:
            start, tasks = specialists.base_tensor(name), specialists.task_vectors(name)
            part = specialists.parts[name]
            if part.kind == "matrix":
                sums = part.matrices(tasks.sum(0))
                merged = torch.stack([isotropic_matrix(matrix) for matrix in sums]).view(
                    start.shape
                )
            else:
                merged = tasks.mean(0)
            yield Merged(name, start.add_(merged, alpha=self.scale))


def isotropic_matrix(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with its non-zero singular values replaced by the mean of all."""
    u, s, vt = singular_triplets(matrix)
    return s.sum() / min(matrix.shape) * (u @ vt)


def polar_factor(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The polar factor U V^T of M = U diag(s) V^T, over its non-zero singular values.

    It is (M M^T)^(-1/2) M, with the pseudo-inverse.
    """
    u, _, vt = singular_triplets(matrix)
    return u @ vt


def singular_triplets(matrix: Float[Tensor, "rows columns"], limit: int | None = None) -> Factors:
    """The largest singular triplets, without those of singular value zero up to rounding.

    The vectors of the latter are arbitrary.

    Args:
        limit: largest number of triplets; None for all.
    """
    if matrix.shape[0] < matrix.shape[1]:  # decomposing a wide matrix takes twice as long
        u, s, vt = singular_triplets(matrix.mT, limit)
        return Factors(vt.mT, s, u.mT)
    small = min(matrix.shape) <= SMALL
    u, s, vt = torch.linalg.svd(matrix.double() if small else matrix, full_matrices=False)
    rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps
    rank = int((s > rounding * s[:1]).sum())
    rank = rank if limit is None else min(rank, limit)
    return Factors(
        u[:, :rank].to(matrix.dtype), s[:rank].to(matrix.dtype), vt[:rank].to(matrix.dtype)
    )
