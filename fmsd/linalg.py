"""Linear algebra: singular directions, truncation and energies of matrices, and unit vectors."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

DirectionSplit = Literal["tail", "top", "random"]
"""Which singular directions to split off: the smallest, the largest, or random ones."""

OVERSAMPLING = 28
"""Extra directions in a block of inverse iteration.

The error falls in each iteration by the ratio of singular values this far apart.
"""

ITERATIONS = 12
"""Limit of inverse iterations, after which the whole matrix is decomposed; about five suffice."""

SMALL = 192
"""Number of singular values up to which a whole decomposition is cheaper than iteration."""


DEPTH, WIDTH = 5, 21
"""Blocks of a Krylov space, and the number of directions per eight rows of a block.

It captures more of a task vector than `torch.svd_lowrank`, in less time.
"""

SHORTEST = 1e-6
"""Least length by which a vector is divided, so that the gradient at zero is finite."""

OVERLAP = 1e-4
"""Overlap with earlier rows below which one projection makes rows orthonormal in float32."""


SVD = Literal["exact", "krylov"]
"""How to truncate matrices: by a whole decomposition, or in a block Krylov space."""


def unit_vectors(vectors: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Normalises vectors along the last dimension, in float32 or better; zeros stay zeros."""
    return functional.normalize(
        vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1, eps=SHORTEST
    )


class Quality(NamedTuple):
    """The quality of a low-rank approximation of a matrix.

    Args:
        energy: its squared Frobenius norm as a share of the matrix's; 1 for a zero matrix.
        of_best: a lower bound of its squared norm as a share of that of the best approximation of
            the same rank; 1 for the best.
        rejected: the `of_best` of an approximation in a Krylov space that was too low, so that the
            whole matrix was decomposed; None otherwise.
    """

    energy: float
    of_best: float
    rejected: float | None = None


class Truncation(NamedTuple):
    """An approximation left @ right of a matrix.

    The factor on the shorter side is orthonormal; of a square matrix, the right one.
    """

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "rank in"]
    quality: Quality


class Factors(NamedTuple):
    """A low-rank matrix u @ diag(s) @ vt, ordered by falling singular values."""

    u: Float[Tensor, "*parts out rank"]
    s: Float[Tensor, "*parts rank"]
    vt: Float[Tensor, "*parts rank in"]


def singular_directions(
    weight: Float[Tensor, "out in"], rank: int, split: DirectionSplit = "tail"
) -> Factors:
    """Computes singular directions of a matrix in double precision; returns them in the weight's.

    The smallest ones come from block inverse iteration on an LU factorisation, at a fraction of the
    cost of a whole decomposition. They are accepted when their residual, relative to the next
    singular value, is below 1e-9; if convergence is slow (a flat end of the spectrum) the whole
    matrix is decomposed. Random directions depend on torch's random state.

    Args:
        rank: number of directions, at least 1 and below min(out, in).
    """
    if not 0 < rank < min(weight.shape):
        raise ValueError(
            f"the rank must lie in [1, {min(weight.shape) - 1}] for a {tuple(weight.shape)} "
            f"matrix, not {rank}"
        )
    exact = _in_double_precision(weight)
    wide = exact.shape[0] < exact.shape[1]
    found = _directions(exact.mT if wide else exact, rank, split)
    if wide:
        found = Factors(found.vt.mT, found.s, found.u.mT)
    return _in_precision_of(weight, found)


def decompose(weight: Float[Tensor, "out in"]) -> Factors:
    """Computes all singular directions of a matrix in double precision; returns them in its own."""
    return _in_precision_of(
        weight, Factors(*torch.linalg.svd(_in_double_precision(weight), full_matrices=False))
    )


def _in_double_precision(weight: Float[Tensor, "out in"]) -> Float64[Tensor, "out in"]:
    """The matrix in double precision, on the CPU where its device has none."""
    device = "cpu" if weight.device.type == "mps" else weight.device
    return weight.detach().to(device, torch.float64)


def _in_precision_of(weight: Float[Tensor, "out in"], factors: Factors) -> Factors:
    """Factors on a matrix's device and in its precision, which is single or more."""
    kind = torch.promote_types(weight.dtype, torch.float32)
    return Factors(*(part.to(weight.device, kind).contiguous() for part in factors))


def _directions(matrix: Float64[Tensor, "out in"], rank: int, split: DirectionSplit) -> Factors:
    """Computes directions of a square or tall matrix; a tall one by its QR decomposition."""
    basis, square = torch.linalg.qr(matrix) if matrix.shape[0] > matrix.shape[1] else (None, matrix)
    found = (
        _smallest(square, rank)
        if split == "tail" and len(square) > max(SMALL, 4 * (rank + OVERSAMPLING))
        else None
    )
    if found is None:
        u, s, vt = torch.linalg.svd(square)
        order = (
            torch.randperm(len(s))[:rank].sort().values.to(s.device)
            if split == "random"
            else torch.arange(len(s), device=s.device)
        )
        places = order[-rank:] if split == "tail" else order[:rank]
        found = Factors(u[:, places], s[places], vt[places])
    return found if basis is None else found._replace(u=basis @ found.u)


def _smallest(square: Float64[Tensor, "size size"], rank: int) -> Factors | None:
    """Computes the smallest directions by block inverse iteration; None if it does not converge."""
    lu, pivots, singular = torch.linalg.lu_factor_ex(square)
    if singular:
        return None
    start = torch.randn(
        len(square),
        rank + OVERSAMPLING,
        dtype=square.dtype,
        generator=torch.Generator().manual_seed(0),
    )
    v, before = torch.linalg.qr(start.to(square.device)).Q, float("inf")
    for _ in range(ITERATIONS):
        u = torch.linalg.qr(torch.linalg.lu_solve(lu, pivots, v, adjoint=True)).Q
        v = torch.linalg.qr(torch.linalg.lu_solve(lu, pivots, u)).Q
        image = square @ v
        inner, s, rotation = torch.linalg.svd(u.mT @ image)
        u, v, image = (u @ inner)[:, -rank:], v @ rotation.mT, image @ rotation.mT
        leak = (
            torch.stack(
                [image[:, -rank:] - u * s[-rank:], square.mT @ u - v[:, -rank:] * s[-rank:]]
            ).norm()
            / s[-rank - 1]
        )
        if leak <= 1e-9:
            return Factors(u, s[-rank:], v[:, -rank:].mT)
        if not leak < 0.3 * before:
            return None
        before = leak
    return None


def truncate(
    matrix: Float[Tensor, "out in"], rank: int, svd: SVD = "exact", least_energy: float = 0.9
) -> Truncation:
    """Approximates a matrix by one of lower rank, in single precision, and measures the quality.

    Args:
        rank: at least 1, at most min(out, in).
        svd: decompose the whole matrix, which gives the best approximation (`exact`), or use
            singular directions from a block Krylov space (`krylov`), at about a tenth of the cost;
            small matrices are always decomposed as a whole.
        least_energy: with `krylov`, the least share of the best approximation's energy, from 0 to
            1, that must be guaranteed; below it the whole matrix is decomposed.
    """
    if matrix.shape[0] < matrix.shape[1]:
        found = truncate(matrix.mT, rank, svd, least_energy)
        return found._replace(left=found.right.mT, right=found.left.mT)
    width, rejected = -(-rank // WIDTH) * 8, None
    if svd == "krylov" and matrix.shape[1] > max(SMALL, DEPTH * width):
        found = _truncated_in_krylov_space(matrix, rank, width)
        if found.quality.of_best >= least_energy:
            return found
        rejected = found.quality.of_best
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    squares = s.double().square()
    return Truncation(
        u[:, :rank] * s[:rank],
        vt[:rank],
        Quality(_share(squares[:rank].sum(), squares.sum()), 1.0, rejected),
    )


def _truncated_in_krylov_space(
    matrix: Float[Tensor, "out in"], rank: int, width: int
) -> Truncation:
    """Returns the best approximation of a rank whose rows lie in a block Krylov space.

    Musco and Musco, NeurIPS 2015, arXiv 1504.05477.

    With P the projector onto the space, M M^T = (M P)(M P)^T + (M - M P)(M - M P)^T. The largest
    eigenvalues of a sum add up to no more than those of its terms (Ky Fan), so the energy of the
    best approximation is at most that of this one plus the energy outside of the space.

    The true share is 0.995 and more for the spectra of task vectors, and 0.9 for noise. Directions
    below 3e-4 of the largest singular value are not resolved. The result is deterministic.
    """
    basis, image = _krylov(matrix, width)
    turn = torch.linalg.eigh(image @ image.mT).eigenvectors[:, -rank:].mT
    left = (turn @ image).mT
    own, inside, whole = _energy(left), _energy(image), _energy(matrix)
    outside = (whole - inside).clamp_min(0)
    return Truncation(left, turn @ basis, Quality(_share(own, whole), _share(own, own + outside)))


def _energy(matrix: Float[Tensor, "rows columns"]) -> Float64[Tensor, ""]:
    """Returns the squared Frobenius norm; only the sum over rows needs double precision."""
    rows = matrix if matrix.stride(-1) == 1 else matrix.mT
    return torch.linalg.vector_norm(rows, dim=1).double().square().sum()


def _share(part: Float64[Tensor, ""], whole: Float64[Tensor, ""]) -> float:
    """Returns a part's share of an energy; 1 of no energy."""
    return min(1.0, float(part / whole)) if whole > 0 else 1.0


def _krylov(
    matrix: Float[Tensor, "out in"], width: int
) -> tuple[Float[Tensor, "blocks in"], Float[Tensor, "blocks out"]]:
    """Returns an orthonormal basis of a block Krylov space as rows, and its image under M.

    The first block are random sums of M's rows, each further one the last block times M^T M.
    """
    rows, columns = matrix.shape
    basis, image = matrix.new_empty(DEPTH * width, columns), matrix.new_empty(DEPTH * width, rows)
    source = torch.Generator().manual_seed(0)
    signs = (torch.randint(2, (rows, 1), generator=source) * 2 - 1).to(matrix)
    block = matrix.new_zeros(width, columns)
    for some, sign in zip(matrix.split(width), signs.split(width), strict=True):
        block[: len(some)].addcmul_(some, sign)
    for start in range(0, DEPTH * width, width):
        before, place = basis[:start], slice(start, start + width)
        tiny = 1e-7 * torch.linalg.matrix_norm(block) + torch.finfo(block.dtype).tiny
        noise = torch.rand(width, columns, generator=source).to(matrix) - 0.5
        # The noise supplies new directions once the space is exhausted.
        block = _orthonormal(block - (block @ before.mT) @ before + tiny * noise)
        overlap = block @ before.mT
        block -= overlap @ before
        basis[place] = _orthonormal(block) if overlap.norm() > OVERLAP else block
        torch.mm(basis[place], matrix.mT, out=image[place])
        if start + width < len(basis):
            block = image[place] @ matrix
    return basis, image


def _orthonormal(rows: Float[Tensor, "rows size"]) -> Float[Tensor, "rows size"]:
    return torch.linalg.qr(rows.mT).Q.mT


def median_singular_value(matrix: Float[Tensor, "out in"]) -> Float[Tensor, ""]:
    """Computes the (lower) median of a matrix's non-zero singular values, in double precision.

    Values below 1e-6 of the largest are zero up to rounding, as in a matrix of low rank or with
    dead rows. The median of a zero matrix is 0.
    """
    exact = _in_double_precision(matrix)
    squares = torch.linalg.eigvalsh(
        exact @ exact.mT if exact.shape[0] <= exact.shape[1] else exact.mT @ exact
    )
    median = squares[squares >= squares[-1].clamp(min=0) * 1e-12].median().clamp(min=0).sqrt()
    return median.to(matrix.device, torch.promote_types(matrix.dtype, torch.float32))


def dense_product(factors: Factors) -> Float[Tensor, "*parts out in"]:
    """Returns the dense matrix u @ diag(s) @ vt."""
    return (factors.u * factors.s[..., None, :]) @ factors.vt


def orthonormal_complement(
    basis: Float[Tensor, "*batch size rank"], matrix: Float[Tensor, "*batch size columns"]
) -> Float[Tensor, "*batch size columns"]:
    """Returns the part of each column outside of the span of the orthonormal columns of `basis`."""
    return matrix - basis @ (basis.mT @ matrix)


def energy_gain(
    image: Float[Tensor, "*batch out rank"],
    left: Float[Tensor, "*batch out rank"],
    right: Float[Tensor, "*batch rank in"],
) -> Float[Tensor, "*batch"]:
    """Returns ||M + L R||_F^2 - ||M||_F^2 without a matrix of the size of M.

    Args:
        image: M R^T.
        left, right: L and R.
    """
    return 2 * (left * image).sum((-2, -1)) + ((left.mT @ left) * (right @ right.mT)).sum((-2, -1))
