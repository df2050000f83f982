"""R2M: a Real core that all specialists share, plus their truncated, norm-matched Fake residuals.

Park, Kim, Cho and Kwon, "Real-Aware Residual Model Merging for Deepfake Detection", 2025, arXiv
2509.24367.

    C = sum_l A_l A_l^T                  rows of A_l: the task vectors tau_i of layer l; N x N
    B = U_k U_k^T                        U_k: the first k eigenvectors of C; see `fmsd.merge.core`
    core = mean_i sum_j B_ij tau_j       the Real component
    residual_i = tau_i - sum_j B_ij tau_j
    theta = theta_0 + core + alpha * mean_i residual_i

The Fake residuals are truncated matrix by matrix, then all scaled to their mean norm. The algorithm
is our reading of the paper's words; see docs/methods/r2m.md.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fmsd.linalg import SVD, truncate
from fmsd.merge.coefficients import (
    check_coefficient_choice,
    check_coefficient_range,
    check_truncation,
)
from fmsd.merge.core import Core, Normalise, leading_core, norm_matching_scales
from fmsd.merge.parallel import parallel_map
from fmsd.merge.task_vectors import BLOCK_ELEMENTS, Merged, Specialists, truncation_record
from fmsd.rounding import floor_share


class Residuals(NamedTuple):
    """The truncated residuals of one tensor: that of expert i is left[:, i]^T @ right[:, i].

    The rows of the factor on the shorter side are orthonormal.
    """

    left: Float[Tensor, "slices experts rank rows"]
    right: Float[Tensor, "slices experts rank columns"]


@dataclass(frozen=True, slots=True)
class R2M:
    """Merges specialists into their Real core and their Fake residuals.

    The weights are read three times: for C, for the residuals, and for the output. The truncated
    residuals are kept in a temporary file meanwhile.

    Args:
        directions: number k of directions that span the core, from 1 to the number of specialists.
        normalise: compute the directions from the task vectors as they are (`none`), or each scaled
            to length 1 (`task`), so that a long one does not determine the core alone.
        ratio: rank of a truncated residual matrix as a share of min(out, in); at least rank 1.
        alpha: weight of the residuals, at least 0.
        svd: truncate residuals by whole decompositions (`exact`), or in a Krylov space (`krylov`).
        least_energy: with `krylov`, the share of the best truncation's energy, from 0 to 1, that a
            truncation must be known to hold; below it the matrix is decomposed as a whole.
    """

    directions: int = 1
    normalise: Normalise = "none"
    ratio: float = 0.1
    alpha: float = 0.6
    svd: SVD = "exact"
    least_energy: float = 0.9

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(1, directions=self.directions)
        check_coefficient_range(0, 1, ratio=self.ratio)
        check_coefficient_range(alpha=self.alpha)
        check_coefficient_choice(("none", "task"), normalise=self.normalise)
        check_truncation(self.svd, self.least_energy)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Yields theta tensor by tensor.

        Each record has the tensor's rank and the norms of its core and of its scaled residuals.

        Raises:
            InputError: there are more directions than specialists.
        """
        grams, names, sizes = specialists.gram, specialists.names, specialists.sizes
        core = self.core(specialists)
        with tempfile.TemporaryFile(dir=specialists.tmpdir) as file, parallel_map() as threaded_map:
            energies, records = [], []
            for residuals, record in threaded_map(
                lambda name: self.residuals(specialists, name, core), names, sizes
            ):
                energies.append(residual_energies(residuals))
                records.append(record)
                for factor in residuals:
                    factor.numpy().tofile(file)
            lengths = torch.stack(energies).sqrt()
            scales = norm_matching_scales(lengths, grams.diagonal(dim1=1, dim2=2).sqrt())
            cores, _ = self.norms(specialists)
            file.seek(0)
            stored = (
                Residuals(*(read_tensor(file, shape) for shape in self.shapes(specialists, name)))
                for name in names
            )
            weights = scales * self.alpha / grams.shape[-1]
            thetas = threaded_map(
                lambda arguments: self.theta(specialists, core.weights, *arguments),
                zip(names, stored, weights, strict=True),
                sizes,
            )
            for name, theta, norm, scaled, record in zip(
                names, thetas, cores, lengths * scales, records, strict=True
            ):
                yield Merged(
                    name, theta, {**record, "core": float(norm), "residuals": scaled.tolist()}
                )

    def core(self, specialists: Specialists) -> Core:
        """The linear combinations of task vectors that make core and residuals.

        Raises:
            InputError: there are more directions than specialists.
        """
        return leading_core(specialists.gram.sum(0), self.directions, self.normalise)

    def norms(
        self, specialists: Specialists
    ) -> tuple[Float64[Tensor, " layers"], Float64[Tensor, "layers experts"]]:
        """The norms of each tensor's core, and of its residuals before truncation."""
        core, grams = self.core(specialists), specialists.gram
        residual = torch.eye(len(core.mix.mT), dtype=core.mix.dtype) - core.shared @ core.mix
        energies = torch.einsum("i,lij,j->l", core.weights, grams, core.weights)
        residual_energies = torch.einsum("ij,ljk,ik->li", residual, grams, residual)
        return energies.clamp_min(0).sqrt(), residual_energies.clamp_min(0).sqrt()

    def shapes(
        self, specialists: Specialists, name: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of a tensor's `Residuals`; one that is no matrix is one column."""
        part, base = specialists.parts[name], specialists.base[name]
        count = len(specialists.experts)
        if part.kind != "matrix":
            return (1, count, 1, base.numel()), (1, count, 1, 1)
        slices, rows, columns = part.matrices(base).shape
        rank = max(1, floor_share(self.ratio, min(rows, columns)))
        return (slices, count, rank, rows), (slices, count, rank, columns)

    def residuals(
        self, specialists: Specialists, name: str, core: Core
    ) -> tuple[Residuals, Mapping[str, Any]]:
        """The residuals of one tensor, and the record of their truncation.

        Matrices are truncated, other tensors kept whole.
        """
        tasks, part = specialists.task_vectors(name), specialists.parts[name]
        flat = tasks.view(len(tasks), -1)
        shared, mix = core.shared.float(), core.mix.float()
        for block in flat.split(BLOCK_ELEMENTS, dim=1):
            block.addmm_(shared, mix @ block, alpha=-1)
        left_shape, right_shape = self.shapes(specialists, name)
        left, right = torch.empty(left_shape), torch.empty(right_shape)
        if part.kind != "matrix":
            left[0, :, 0], right[:] = flat, 1
            return Residuals(left, right), {}
        rank, qualities = left.shape[2], []
        matrices = part.matrices(tasks, stack=1)
        for expert, index in np.ndindex(left.shape[1], left.shape[0]):
            found = truncate(matrices[expert, index], rank, self.svd, self.least_energy)
            left[index, expert], right[index, expert] = found.left.mT, found.right
            qualities.append(found.quality)
        return Residuals(left, right), truncation_record(rank, qualities)

    def theta(
        self,
        specialists: Specialists,
        core: Float64[Tensor, " experts"],
        name: str,
        residuals: Residuals,
        weights: Float64[Tensor, " experts"],
    ) -> Tensor:
        """A tensor of the base plus its core and its weighted residuals."""
        left, right = residuals
        theta = specialists.base_tensor(name)
        for weight, task in zip(core.tolist(), specialists.task_vectors(name), strict=True):
            theta.add_(task, alpha=weight)
        right *= weights.to(right)[:, None, None]
        theta.view(len(left), left.shape[-1], -1).baddbmm_(
            left.flatten(1, 2).mT, right.flatten(1, 2)
        )
        return theta


def residual_energies(residuals: Residuals) -> Float64[Tensor, " experts"]:
    """The squared norms of one tensor's residuals."""
    left, right = residuals
    # The factor on the shorter side is orthonormal.
    values = left if left.shape[-1] >= right.shape[-1] else right
    return values.square().sum(-1, dtype=torch.float64).sum((0, 2))


def read_tensor(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """Reads the next float32 elements of a file as a tensor."""
    return torch.from_numpy(np.fromfile(file, np.float32, math.prod(shape))).view(shape)
