"""R2M: a Real core that all specialists share, plus what each knows of its own forgery, denoised and matched in norm.

Park, Kim, Choi and Kwon, "Real-Aware Residual Model Merging for Deepfake Detection", 2025, arXiv 2509.24367.

    C = sum_l omega_l A_l A_l^T                  rows of A_l: the task vectors tau_i of layer l; N x N
    B = U_k U_k^T                                U_k: the first k eigenvectors of C
    core = mean_i sum_j B_ij tau_j               the Real component
    residual_i = tau_i - sum_j B_ij tau_j        the Fake residual: each matrix truncated, then all scaled to their mean norm
    theta = theta_0 + core + eta * mean_i residual_i

The algorithm is our reading of the paper's words; see docs/methods/r2m.md.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fmsd.errors import InputError
from fmsd.linalg import truncated
from fmsd.merge.delta import BLOCK, Merged, Specialists, in_range, one_of
from fmsd.merge.parallel import ahead
from fmsd.shares import rounded_down

NOTHING = 1e-5
"""A residual of this share of its task vector is rounding, and is not scaled up to the norm of the others."""


class Division(NamedTuple):
    """How task vectors fall into core and residuals: by the same linear combinations in every layer.

    Args:
        core: core = sum_j core_j tau_j.
        shared, mix: residual_i = tau_i - sum_c shared_ic sum_j mix_cj tau_j.
    """

    core: Float64[Tensor, " experts"]
    shared: Float64[Tensor, "experts directions"]
    mix: Float64[Tensor, "directions experts"]


class Residuals(NamedTuple):
    """The truncated residuals of one tensor: that of expert i is left[:, i]^T @ right[:, i]. The rows of the shorter of the two are orthonormal."""

    left: Float[Tensor, "slices experts rank rows"]
    right: Float[Tensor, "slices experts rank columns"]


@dataclass(frozen=True, slots=True)
class R2M:
    """Merges specialists into their Real core and their Fake residuals.

    The weights are read three times: for C, for the residuals, and for the output. The truncated residuals wait in a temporary file.

    Args:
        directions: number k of directions that span the core, from 1 to the number of specialists.
        ratio: rank that is kept of a residual matrix, as a share of min(out, in); at least one.
        alpha: weight of the residuals.
        step: eta = alpha (`abs`), or alpha * ||core|| / ||mean residual|| (`rel`).
        residual: what is left of a task vector beside its own projection (`perspec`), or beside the core (`core`).
        matching: bring the residuals to their mean norm over the whole model (`global`), in every tensor (`layer`), or not at all (`none`).
        weighting: omega_l = 1 (`none`), or 1 / sum_i ||tau_i,l||^2, which lets every tensor count the same (`layer`).
        centre: take the directions from the task vectors less their mean. The first is then that of greatest disagreement, and the core
            what the mean has along it.
    """

    directions: int = 1
    ratio: float = 0.1
    alpha: float = 0.6
    step: Literal["abs", "rel"] = "abs"
    residual: Literal["perspec", "core"] = "perspec"
    matching: Literal["global", "layer", "none"] = "global"
    weighting: Literal["none", "layer"] = "none"
    centre: bool = False

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

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Yields theta tensor by tensor, with the rank of each and the norms of its core and of its residuals as they are added.

        Raises:
            InputError: more directions than specialists.
        """
        grams, names = specialists.gram, specialists.names
        division = self.divide(grams)
        with tempfile.TemporaryFile(dir=specialists.scratch) as file, ahead() as mapped:
            found = []
            for residuals in mapped(lambda name: self.residuals(specialists, name, division), names, specialists.sizes):
                found.append(self.inner(residuals))
                for factor in residuals:
                    factor.numpy().tofile(file)
            inner = torch.stack(found)
            lengths = inner.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
            scales = self.scales(lengths, grams.diagonal(dim1=1, dim2=2).sqrt())
            cores, _ = self.norms(grams)
            mean = torch.einsum("li,lij,lj->", scales, inner, scales).clamp_min(0).sqrt() / grams.shape[-1]
            eta = self.alpha if self.step == "abs" else self.alpha * float(cores.norm() / mean) if mean else 0.0
            file.seek(0)
            kept = (Residuals(*(loaded(file, shape) for shape in self.shapes(specialists, name))) for name in names)
            weights = scales * eta / grams.shape[-1]
            thetas = mapped(lambda of: self.theta(specialists, division.core, *of), zip(names, kept, weights, strict=True), specialists.sizes)
            for name, theta, core, own in zip(names, thetas, cores, lengths * scales, strict=True):
                rank = {"rank": self.shapes(specialists, name)[0][2]} if specialists.parts[name].kind == "matrix" else {}
                yield Merged(name, theta, {**rank, "core": float(core), "residuals": own.tolist()})

    def divide(self, grams: Float64[Tensor, "layers experts experts"]) -> Division:
        """The linear combinations that make core and residuals, from the Gram matrices of the layers.

        Raises:
            InputError: more directions than specialists.
        """
        count = grams.shape[-1]
        if self.directions > count or self.directions % 1:
            raise InputError(f"merger.directions={self.directions} does not fit {count} experts", f"give a whole number from 1 to {count}")
        whole = self.gram(grams)
        energies, vectors = (part[..., count - int(self.directions) :] for part in torch.linalg.eigh(centred(whole) if self.centre else whole))
        shared = torch.where(energies > 1e-12 * energies[-1], whole @ vectors / energies, 0.0)  # the vectors themselves, if C is not centred
        core = vectors @ shared.mean(0)
        if self.residual == "core":
            return Division(core, torch.ones(count, 1, dtype=core.dtype), core[None])
        return Division(core, shared, vectors.mT)

    def gram(self, grams: Float64[Tensor, "layers experts experts"]) -> Float64[Tensor, "experts experts"]:
        """The matrix C, not centred."""
        if self.weighting == "layer":
            sizes = grams.diagonal(dim1=1, dim2=2).sum(1)
            grams = grams / torch.where(sizes > 0, sizes, 1)[:, None, None]
        return grams.sum(0)

    def norms(self, grams: Float64[Tensor, "layers experts experts"]) -> tuple[Float64[Tensor, " layers"], Float64[Tensor, "layers experts"]]:
        """The norms of each layer's core, and of its residuals before they are truncated."""
        core, shared, mix = self.divide(grams)
        own = torch.eye(len(core), dtype=core.dtype) - shared @ mix
        lengths = torch.einsum("ij,ljk,ik->li", own, grams, own)
        return torch.einsum("i,lij,j->l", core, grams, core).clamp_min(0).sqrt(), lengths.clamp_min(0).sqrt()

    def shapes(self, specialists: Specialists, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of a tensor's truncated residuals; one that is no matrix counts as a column."""
        part, base, count = specialists.parts[name], specialists.base[name], len(specialists.experts)
        if part.kind != "matrix":
            return (1, count, 1, base.numel()), (1, count, 1, 1)
        slices, rows, columns = part.matrices(base).shape
        rank = max(1, rounded_down(self.ratio, min(rows, columns)))
        return (slices, count, rank, rows), (slices, count, rank, columns)

    def residuals(self, specialists: Specialists, name: str, division: Division) -> Residuals:
        """The residuals of one tensor; those of matrices are truncated, others kept whole."""
        tasks, part = specialists.tasks(name), specialists.parts[name]
        flat, shared, mix = tasks.view(len(tasks), -1), division.shared.float(), division.mix.float()
        for block in flat.split(BLOCK, dim=1):
            block.addmm_(shared, mix @ block, alpha=-1)
        left, right = (torch.empty(shape) for shape in self.shapes(specialists, name))
        if part.kind == "matrix":
            for slice_, expert in np.ndindex(*left.shape[:2]):
                own = truncated(part.matrices(tasks, stack=1)[expert, slice_], left.shape[2])
                left[slice_, expert], right[slice_, expert] = own[0].mT, own[1]
        else:
            left[0, :, 0], right[:] = flat, 1
        return Residuals(left, right)

    def theta(
        self, specialists: Specialists, core: Float64[Tensor, " experts"], name: str, residuals: Residuals, weights: Float64[Tensor, " experts"]
    ) -> Tensor:
        """A tensor of the base with its core and its residuals, weighted, added."""
        left, right = residuals
        theta = specialists.start(name)
        for weight, task in zip(core.tolist(), specialists.tasks(name), strict=True):
            theta.add_(task, alpha=weight)
        right *= weights.to(right)[:, None, None]
        theta.view(len(left), left.shape[-1], -1).baddbmm_(left.flatten(1, 2).mT, right.flatten(1, 2))
        return theta

    def inner(self, residuals: Residuals) -> Float64[Tensor, "experts experts"]:
        """The inner products of one tensor's residuals; where no relative step asks for the others, their squared norms only."""
        left, right = residuals
        if self.step == "rel":
            left, right = left.flatten(1, 2), right.flatten(1, 2)
            products, size = (left @ left.mT) * (right @ right.mT), residuals.left.shape[1:3]
            return products.double().unflatten(2, size).unflatten(1, size).sum((0, 2, 4))
        values = left if left.shape[-1] >= right.shape[-1] else right  # the other one is orthonormal
        return torch.diag(values.square().sum(-1, dtype=torch.float64).sum((0, 2)))

    def scales(self, lengths: Float64[Tensor, "layers experts"], tasks: Float64[Tensor, "layers experts"]) -> Float64[Tensor, "layers experts"]:
        """What brings residuals of the given norms to their mean norm; 0 where next to nothing of a task vector is left.

        Args:
            tasks: norms of the whole task vectors.
        """
        own, whole = lengths, tasks
        if self.matching == "global":
            own, whole = own.norm(dim=0, keepdim=True), whole.norm(dim=0, keepdim=True)
        goal = own if self.matching == "none" else own.mean(1, keepdim=True)
        return torch.where(own > NOTHING * whole, goal / own, 0.0).expand_as(lengths)


def centred(gram: Float64[Tensor, "experts experts"]) -> Float64[Tensor, "experts experts"]:
    """The Gram matrix of vectors less their mean."""
    return gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()


def loaded(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """The next numbers of a file as a tensor."""
    return torch.from_numpy(np.fromfile(file, np.float32, math.prod(shape))).view(shape)
