"""Linear algebra of weight matrices: the split of a matrix at its spectrum, and what keeps the parts apart."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Split = Literal["tail", "top", "random"]
"""Which singular directions are split off: the smallest, the largest, or any."""

OVERSAMPLING = 28
"""Directions beyond the wanted ones in a block of inverse iteration: each iteration then gains the ratio of singular values this far apart."""

ITERATIONS = 12
"""Inverse iterations before the whole decomposition is computed instead; square matrices, trained or random, need about five."""

SMALL = 192
"""Up to this many singular values the whole decomposition costs less than the iteration."""


DEPTH, WIDTH = 5, 21
"""Blocks of a Krylov space, and the directions for which each gets eight rows: more of a task vector than `torch.svd_lowrank` finds, in less time."""

OVERLAP = 1e-4
"""Rows that overlap less with those before them are orthonormal for single precision once the overlap is taken away."""


SVD = Literal["exact", "krylov"]
"""How matrices are truncated: by their whole singular value decomposition, or in a block Krylov space."""


class Quality(NamedTuple):
    """How good an approximation of a matrix is.

    Args:
        energy: its squared Frobenius norm as a share of the matrix's; 1 for a zero matrix.
        of_best: a lower bound of its squared norm as a share of what the best approximation of that
            rank holds; 1 for the best.
        rejected: the bound of an approximation that was too low, so that the whole decomposition
            was computed instead.
    """

    energy: float
    of_best: float
    rejected: float | None = None


class Truncation(NamedTuple):
    """An approximation left @ right of a matrix. The factor on the shorter side is orthonormal; of a square matrix, the right one."""

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "rank in"]
    quality: Quality


class Factors(NamedTuple):
    """A low-rank matrix u @ diag(s) @ vt, its columns ordered by falling singular value."""

    u: Float[Tensor, "*parts out rank"]
    s: Float[Tensor, "*parts rank"]
    vt: Float[Tensor, "*parts rank in"]


def singular_directions(
    weight: Float[Tensor, "out in"], rank: int, split: Split = "tail"
) -> Factors:
    """`rank` singular directions of a matrix; computed in double precision, returned in the weight's.

    The smallest ones come from block inverse iteration on an LU factorisation, at a fraction of the
    cost of a whole decomposition. A direction counts as found when it leaks less than 1e-9 into the
    rest of the matrix; where that does not happen soon (a flat end of the spectrum) the whole
    decomposition is computed. Random directions follow torch's random state.

    Args:
        rank: at least 1 and below min(out, in).
    """
    if not 0 < rank < min(weight.shape):
        raise ValueError(
            f"the rank must lie in [1, {min(weight.shape) - 1}] for a {tuple(weight.shape)} "
            f"matrix, not {rank}"
        )
    exact = weight.detach().to(
        "cpu" if weight.device.type == "mps" else weight.device, torch.float64
    )
    wide = exact.shape[0] < exact.shape[1]
    found = _directions(exact.mT if wide else exact, rank, split)
    if wide:
        found = Factors(found.vt.mT, found.s, found.u.mT)
    kind = torch.promote_types(weight.dtype, torch.float32)
    return Factors(*(part.to(weight.device, kind).contiguous() for part in found))


def _directions(matrix: Float64[Tensor, "out in"], rank: int, split: Split) -> Factors:
    """Of a matrix that is not wide. A tall one is reduced to the square factor of its QR decomposition."""
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
    """Block inverse iteration for the smallest singular directions; None where it does not converge."""
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
    """Approximates a matrix by one of lower rank, in single precision, and measures how much of it that holds.

    Args:
        rank: at least 1, at most min(out, in).
        svd: the whole decomposition, which gives the best approximation (`exact`), or singular
            directions from a block Krylov space (`krylov`), at about a tenth of the cost; small
            matrices are decomposed as a whole anyway.
        least_energy: where the Krylov space guarantees a smaller share of the best approximation's
            energy, the matrix is decomposed as a whole. 0 takes any, 1 hardly one.
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
    """The best approximation of a rank whose rows lie in a block Krylov space (Musco and Musco, NeurIPS 2015, arXiv 1504.05477).

    With P the projector onto the space, M M^T = (M P)(M P)^T + (M - M P)(M - M P)^T. The largest
    eigenvalues of a sum add up to no more than those of its terms (Ky Fan), so the best
    approximation holds at most what this one does and what lies outside the space.

    In truth it holds 0.995 and more of the best for the spectra of task vectors, and 0.9 for noise.
    Directions below 3e-4 of the largest singular value are not told apart. The same matrix gives
    the same factors.
    """
    basis, image = _krylov(matrix, width)
    turn = torch.linalg.eigh(image @ image.mT).eigenvectors[:, -rank:].mT
    left = (turn @ image).mT
    own, inside, whole = _energy(left), _energy(image), _energy(matrix)
    outside = (whole - inside).clamp_min(0)
    return Truncation(left, turn @ basis, Quality(_share(own, whole), _share(own, own + outside)))


def _energy(matrix: Float[Tensor, "rows columns"]) -> Float64[Tensor, ""]:
    """The squared Frobenius norm; double precision is needed only for the sum over the rows, which costs next to nothing."""
    rows = matrix if matrix.stride(-1) == 1 else matrix.mT
    return torch.linalg.vector_norm(rows, dim=1).double().square().sum()


def _share(part: Float64[Tensor, ""], whole: Float64[Tensor, ""]) -> float:
    """A share of an energy; 1 of nothing."""
    return min(1.0, float(part / whole)) if whole > 0 else 1.0


def _krylov(
    matrix: Float[Tensor, "out in"], width: int
) -> tuple[Float[Tensor, "blocks in"], Float[Tensor, "blocks out"]]:
    """Orthonormal rows that begin with random sums of the matrix's rows, each block the last one's image under M^T M; and what M makes of them."""
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
        block = _orthonormal(
            block - (block @ before.mT) @ before + tiny * noise
        )  # where nothing is left, anything new
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
    """The median (the lower one of two) of a matrix's singular values that are not zero; computed in double precision, returned in the matrix's.

    Zero is what lies below 1e-6 of the largest: rounding of a matrix of low rank, or with dead
    rows. A matrix of zeros has 0.
    """
    exact = matrix.detach().to(
        "cpu" if matrix.device.type == "mps" else matrix.device, torch.float64
    )
    squares = torch.linalg.eigvalsh(
        exact @ exact.mT if exact.shape[0] <= exact.shape[1] else exact.mT @ exact
    )
    median = squares[squares >= squares[-1].clamp(min=0) * 1e-12].median().clamp(min=0).sqrt()
    return median.to(matrix.device, torch.promote_types(matrix.dtype, torch.float32))


def dense_product(factors: Factors) -> Float[Tensor, "*parts out in"]:
    """The dense matrix of its factors."""
    return (factors.u * factors.s[..., None, :]) @ factors.vt


def orthonormal_complement(
    basis: Float[Tensor, "*batch size rank"], matrix: Float[Tensor, "*batch size columns"]
) -> Float[Tensor, "*batch size columns"]:
    """The part of each column of `matrix` that lies outside the span of the orthonormal columns of `basis`."""
    return matrix - basis @ (basis.mT @ matrix)


def energy_gain(
    image: Float[Tensor, "*batch out rank"],
    left: Float[Tensor, "*batch out rank"],
    right: Float[Tensor, "*batch rank in"],
) -> Float[Tensor, "*batch"]:
    """||M + L R||_F^2 - ||M||_F^2 without a matrix of the size of M.

    Args:
        image: M R^T.
        left, right: L and R.
    """
    return 2 * (left * image).sum((-2, -1)) + ((left.mT @ left) * (right @ right.mT)).sum((-2, -1))
