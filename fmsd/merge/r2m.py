"""R2M: a Real core that all specialists share, plus what each knows of its own forgery, denoised and matched in norm.

Park, Kim, Cho and Kwon, "Real-Aware Residual Model Merging for Deepfake Detection", 2025, arXiv
2509.24367.

    C = sum_l omega_l A_l A_l^T                  rows of A_l: the task vectors tau_i of layer l; N x N
    B = U_k U_k^T                                U_k: the first k eigenvectors of C; see `fmsd.merge.core`
    core = mean_i sum_j B_ij tau_j               the Real component
    residual_i = tau_i - sum_j B_ij tau_j        the Fake residual: each matrix truncated, then all scaled to their mean norm
    theta = theta_0 + core + eta * mean_i residual_i

The algorithm is our reading of the paper's words; see docs/methods/r2m.md.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fmsd.linalg import SVD, truncated
from fmsd.merge.core import Core, Matching, Normalise, leading_core, matching_scales
from fmsd.merge.parallel import ahead
from fmsd.merge.task_vectors import (
    BLOCK,
    Merged,
    Specialists,
    check_truncation,
    in_range,
    one_of,
    truncation_record,
)
from fmsd.shares import floor_share


class Residuals(NamedTuple):
    """The truncated residuals of one tensor: that of expert i is left[:, i]^T @ right[:, i]. The rows of the shorter of the two are orthonormal."""

    left: Float[Tensor, "slices experts rank rows"]
    right: Float[Tensor, "slices experts rank columns"]


@dataclass(frozen=True, slots=True)
class R2M:
    """Merges specialists into their Real core and their Fake residuals.

    The weights are read three times: for C, for the residuals, and for the output. The truncated
    residuals wait in a temporary file.

    Args:
        directions: number k of directions that span the core, from 1 to the number of specialists.
        normalise: find the directions in the task vectors as they are (`none`), or each scaled to
            length 1 (`task`), so that a long one does not make the core alone.
        ratio: rank that is kept of a residual matrix, as a share of min(out, in); at least one.
        alpha: weight of the residuals.
        step: eta = alpha (`abs`), or alpha * ||core|| / ||mean residual|| (`rel`).
        residual: what is left of a task vector beside its own projection (`perspec`), or beside the
            core (`core`).
        matching: bring the residuals to their mean norm over the whole model (`global`), in every
            tensor (`layer`), or not at all (`none`).
        weighting: omega_l = 1 (`none`), or 1 / sum_i ||tau_i,l||^2, which lets every tensor count
            the same (`layer`).
        centre: take the directions from the task vectors less their mean. The first is then that of
            greatest disagreement, and the core what the mean has along it.
        svd: truncate residuals by whole decompositions (`exact`), or, where that is good enough, in
            a Krylov space (`krylov`).
        least_energy: share of the best truncation's energy that one in a Krylov space must be known
            to hold, from 0 to 1; below it the matrix is decomposed as a whole.
    """

    directions: int = 1
    normalise: Normalise = "none"
    ratio: float = 0.1
    alpha: float = 0.6
    step: Literal["abs", "rel"] = "abs"
    residual: Literal["perspec", "core"] = "perspec"
    matching: Matching = "global"
    weighting: Literal["none", "layer"] = "none"
    centre: bool = False
    svd: SVD = "exact"
    least_energy: float = 0.9

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(1, directions=self.directions)
        in_range(0, 1, ratio=self.ratio)
        in_range(alpha=self.alpha)
        one_of(("abs", "rel"), step=self.step)
        one_of(("perspec", "core"), residual=self.residual)
        one_of(("global", "layer", "none"), matching=self.matching)
        one_of(("none", "layer"), weighting=self.weighting)
        one_of((True, False), centre=self.centre)
        one_of(("none", "task"), normalise=self.normalise)
        check_truncation(self.svd, self.least_energy)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Yields theta tensor by tensor, with the rank of each and the norms of its core and of its residuals as they are added.

        Raises:
            InputError: more directions than specialists.
        """
        grams, names = specialists.gram, specialists.names
        core = self.core(specialists)
        with tempfile.TemporaryFile(dir=specialists.scratch) as file, ahead() as mapped:
            found, records = [], []
            for residuals, record in mapped(
                lambda name: self.residuals(specialists, name, core), names, specialists.sizes
            ):
                found.append(self.inner(residuals))
                records.append(record)
                for factor in residuals:
                    factor.numpy().tofile(file)
            inner = torch.stack(found)
            lengths = inner.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
            scales = matching_scales(lengths, grams.diagonal(dim1=1, dim2=2).sqrt(), self.matching)
            cores, _ = self.norms(specialists)
            mean = (
                torch.einsum("li,lij,lj->", scales, inner, scales).clamp_min(0).sqrt()
                / grams.shape[-1]
            )
            eta = (
                self.alpha
                if self.step == "abs"
                else self.alpha * float(cores.norm() / mean)
                if mean
                else 0.0
            )
            file.seek(0)
            kept = (
                Residuals(*(loaded(file, shape) for shape in self.shapes(specialists, name)))
                for name in names
            )
            weights = scales * eta / grams.shape[-1]
            thetas = mapped(
                lambda of: self.theta(specialists, core.weights, *of),
                zip(names, kept, weights, strict=True),
                specialists.sizes,
            )
            for name, theta, norm, own, record in zip(
                names, thetas, cores, lengths * scales, records, strict=True
            ):
                yield Merged(
                    name, theta, {**record, "core": float(norm), "residuals": own.tolist()}
                )

    def core(self, specialists: Specialists) -> Core:
        """The linear combinations that make core and residuals.

        Raises:
            InputError: more directions than specialists.
        """
        grams = specialists.gram
        if self.weighting == "layer":
            sizes = grams.diagonal(dim1=1, dim2=2).sum(1)
            grams = grams / torch.where(sizes > 0, sizes, 1)[:, None, None]
        return leading_core(grams.sum(0), self.directions, self.normalise, self.centre)

    def removed(
        self, core: Core
    ) -> tuple[Float64[Tensor, "experts parts"], Float64[Tensor, "parts experts"]]:
        """The factors of what a task vector loses to leave its residual: of its projection onto the core's directions, or of the core."""
        if self.residual == "core":
            return torch.ones_like(core.weights)[:, None], core.weights[None]
        return core.shared, core.mix

    def norms(
        self, specialists: Specialists
    ) -> tuple[Float64[Tensor, " layers"], Float64[Tensor, "layers experts"]]:
        """The norms of each tensor's core, and of its residuals before they are truncated."""
        core, grams = self.core(specialists), specialists.gram
        shared, mix = self.removed(core)
        own = torch.eye(len(mix.mT), dtype=mix.dtype) - shared @ mix
        lengths = torch.einsum("ij,ljk,ik->li", own, grams, own)
        return torch.einsum("i,lij,j->l", core.weights, grams, core.weights).clamp_min(
            0
        ).sqrt(), lengths.clamp_min(0).sqrt()

    def shapes(
        self, specialists: Specialists, name: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of a tensor's truncated residuals; one that is no matrix counts as a column."""
        part, base, count = (
            specialists.parts[name],
            specialists.base[name],
            len(specialists.experts),
        )
        if part.kind != "matrix":
            return (1, count, 1, base.numel()), (1, count, 1, 1)
        slices, rows, columns = part.matrices(base).shape
        rank = max(1, floor_share(self.ratio, min(rows, columns)))
        return (slices, count, rank, rows), (slices, count, rank, columns)

    def residuals(
        self, specialists: Specialists, name: str, core: Core
    ) -> tuple[Residuals, Mapping[str, Any]]:
        """The residuals of one tensor, and how well they are approximated; those of matrices are truncated, others kept whole."""
        tasks, part = specialists.tasks(name), specialists.parts[name]
        flat, (shared, mix) = (
            tasks.view(len(tasks), -1),
            (factor.float() for factor in self.removed(core)),
        )
        for block in flat.split(BLOCK, dim=1):
            block.addmm_(shared, mix @ block, alpha=-1)
        left, right = (torch.empty(shape) for shape in self.shapes(specialists, name))
        if part.kind != "matrix":
            left[0, :, 0], right[:] = flat, 1
            return Residuals(left, right), {}
        found = []
        for expert, slice_ in np.ndindex(left.shape[1], left.shape[0]):
            own = truncated(
                part.matrices(tasks, stack=1)[expert, slice_],
                left.shape[2],
                self.svd,
                self.least_energy,
            )
            left[slice_, expert], right[slice_, expert] = own.left.mT, own.right
            found.append(own.quality)
        return Residuals(left, right), truncation_record(left.shape[2], found)

    def theta(
        self,
        specialists: Specialists,
        core: Float64[Tensor, " experts"],
        name: str,
        residuals: Residuals,
        weights: Float64[Tensor, " experts"],
    ) -> Tensor:
        """A tensor of the base with its core and its residuals, weighted, added."""
        left, right = residuals
        theta = specialists.start(name)
        for weight, task in zip(core.tolist(), specialists.tasks(name), strict=True):
            theta.add_(task, alpha=weight)
        right *= weights.to(right)[:, None, None]
        theta.view(len(left), left.shape[-1], -1).baddbmm_(
            left.flatten(1, 2).mT, right.flatten(1, 2)
        )
        return theta

    def inner(self, residuals: Residuals) -> Float64[Tensor, "experts experts"]:
        """The inner products of one tensor's residuals; where no relative step asks for the others, their squared norms only."""
        left, right = residuals
        if self.step == "rel":
            left, right = left.flatten(1, 2), right.flatten(1, 2)
            products, size = (left @ left.mT) * (right @ right.mT), residuals.left.shape[1:3]
            return products.double().unflatten(2, size).unflatten(1, size).sum((0, 2, 4))
        values = (
            left if left.shape[-1] >= right.shape[-1] else right
        )  # the other one is orthonormal
        return torch.diag(values.square().sum(-1, dtype=torch.float64).sum((0, 2)))


def loaded(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """The next numbers of a file as a tensor."""
    return torch.from_numpy(np.fromfile(file, np.float32, math.prod(shape))).view(shape)
