"""Linear algebra of weight matrices: the split of a matrix at its spectrum's tail, and what keeps the parts apart."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Factors(NamedTuple):
    """A low-rank matrix u @ diag(s) @ vt, its columns ordered by falling singular value."""

    u: Float[Tensor, "out rank"]
    s: Float[Tensor, " rank"]
    vt: Float[Tensor, "rank in"]


class Spectrum(NamedTuple):
    """A matrix as head + tail, where the tail holds its smallest singular directions in factored form."""

    head: Float[Tensor, "out in"]
    tail: Factors


def split_spectrum(weight: Float[Tensor, "out in"], rank: int) -> Spectrum:
    """Splits off the `rank` smallest singular directions; head = weight - tail, so the sum is exact up to rounding.

    Args:
        rank: at least 1 and below min(out, in).
    """
    if not 0 < rank < min(weight.shape):
        raise ValueError(f"the tail's rank must lie in [1, {min(weight.shape) - 1}] for a {tuple(weight.shape)} matrix, not {rank}")
    matrix = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    tail = Factors(u[:, -rank:].contiguous(), s[-rank:].contiguous(), vt[-rank:].contiguous())
    return Spectrum((matrix - product(tail)).to(weight.dtype), tail)


def product(factors: Factors) -> Float[Tensor, "out in"]:
    """The dense matrix of its factors."""
    return (factors.u * factors.s) @ factors.vt


def orthonormal_complement(basis: Float[Tensor, "*batch size rank"], matrix: Float[Tensor, "*batch size rank"]) -> Float[Tensor, "*batch size rank"]:
    """The part of each column of `matrix` that lies outside the span of the orthonormal columns of `basis`."""
    return matrix - basis @ (basis.mT @ matrix)


def gram_error(matrix: Float[Tensor, "*batch size rank"]) -> Float[Tensor, "*batch"]:
    """||M^T M - I||_F^2: zero when the columns are orthonormal."""
    gram = matrix.mT @ matrix
    return (gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).square().sum((-2, -1))
