"""The core that specialists share, computed from the Gram matrix of their task vectors alone."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from fmsd.errors import InputError
from fmsd.merge.task_vectors import Specialists

Normalise = Literal["none", "task"]
"""Compute the core's directions from the task vectors as they are, or each scaled to length 1."""

NEGLIGIBLE = 1e-5
"""A residual up to this share of its task vector is a rounding error, and is scaled to 0."""

LEAST_GAP = 0.3
"""Below this spectral gap, a little noise turns the core's directions into others."""

LARGEST_SHARE = 0.6
"""Above this share, the core is one specialist's task vector rather than common to all."""


class Core(NamedTuple):
    """Linear combinations that split task vectors into core and residuals, equal in every tensor.

    Args:
        directions: number k of directions that span the core.
        normalise: whether they were computed from task vectors scaled to length 1.
        matrix: the matrix whose first k eigenvectors give them: C, or C of the scaled vectors.
        weights: core = sum_j weights_j tau_j.
        shared, mix: the projection of tau_i onto the directions is sum_c shared_ic sum_j mix_cj
            tau_j.
        shares: share of each specialist in the core, |weights_i| ||tau_i|| over the sum of all;
            None if there is no core.
        gap: (lambda_k - lambda_(k+1)) / lambda_k of the matrix's eigenvalues, 1 if all further
            eigenvalues are zero; None if there is no core.
    """

    directions: int
    normalise: Normalise
    matrix: Float64[Tensor, "experts experts"]
    weights: Float64[Tensor, " experts"]
    shared: Float64[Tensor, "experts directions"]
    mix: Float64[Tensor, "directions experts"]
    shares: list[float] | None
    gap: float | None

    def warnings(self, labels: Sequence[str]) -> list[str]:
        """Reasons to doubt that all specialists share the core, as sentences.

        Args:
            labels: the specialists' names.
        """
        energies = self.matrix.diagonal().tolist()
        unmoved = [
            f"{label} is the base itself: leave it out"
            for label, energy in zip(labels, energies, strict=True)
            if not energy
        ]
        warnings = list(unmoved)
        if self.gap is not None and self.gap < LEAST_GAP:
            warnings.append(
                "The core is not determined: the spectral gap behind its "
                f"{'direction' if self.directions == 1 else 'directions'} is "
                f"{self.gap:.2f}, below {LEAST_GAP:g}, so that a little noise would give another "
                "core"
            )
        if not unmoved and self.shares is not None and max(self.shares) > LARGEST_SHARE:
            largest = max(range(len(self.shares)), key=self.shares.__getitem__)
            cure = (
                ": its task vector is longer than the others or nearer to them; merger=r2m "
                "merger.normalise=task takes the length out"
            )
            warnings.append(
                f"{labels[largest]} alone makes {self.shares[largest]:.0%} of the "
                f"core{cure if self.normalise == 'none' else ''}"
            )
        return warnings


@runtime_checkable
class HasCore(Protocol):
    """A merger that splits task vectors into a core and residuals, as R2M does."""

    def core(self, specialists: Specialists) -> Core:
        """The linear combinations of task vectors that make core and residuals."""
        ...

    def norms(
        self, specialists: Specialists
    ) -> tuple[Float64[Tensor, " layers"], Float64[Tensor, "layers experts"]]:
        """The norms of each tensor's core, and of each specialist's residual."""
        ...


def leading_core(
    gram: Float64[Tensor, "experts experts"],
    directions: int,
    normalise: Normalise = "none",
) -> Core:
    """The core along the leading directions of the task vectors.

        R = C / (n n^T),  n_i = sqrt(C_ii);  u = first k eigenvectors of R;  W = u / n
        shared = C W (W^T C W)^-1,  mix = W^T,  core = W mean_i shared_i

    with normalise="task"; with "none", n = 1.

    Args:
        gram: inner products C of the task vectors.
        directions: number k of directions, from 1 to the number of specialists.

    Raises:
        InputError: there are more directions than specialists.
    """
    count = len(gram)
    if not 1 <= directions <= count or directions % 1:
        raise InputError(
            f"merger.directions={directions} does not fit {count} experts",
            f"give a whole number from 1 to {count}",
        )
    first = slice(count - int(directions), None)
    lengths = gram.diagonal().clamp_min(0).sqrt()
    units = (
        torch.where(lengths > 0, lengths, 1.0) if normalise == "task" else torch.ones_like(lengths)
    )
    matrix = gram / units[:, None] / units
    energies, vectors = torch.linalg.eigh(matrix)
    nonzero = energies > 1e-12 * energies[-1]
    combined = vectors[:, first] / units[:, None]
    # W^T C W is the diagonal matrix of the eigenvalues.
    shared = torch.where(nonzero[first], gram @ combined / energies[first], 0.0)
    weights = combined @ shared.mean(0)
    parts = weights.abs() * lengths
    return Core(
        int(directions),
        normalise,
        matrix,
        weights,
        shared,
        combined.mT,
        (parts / parts.sum()).tolist() if parts.sum() > 0 else None,
        spectral_gap(energies.flip(0), int(directions)),
    )


def spectral_gap(energies: Float64[Tensor, " experts"], directions: int) -> float | None:
    """The gap (lambda_k - lambda_(k+1)) / lambda_k of falling eigenvalues.

    It is 1 if those after the k-th are zero, and None if all are.
    """
    nonzero = torch.where(energies > 1e-12 * energies[0], energies, 0.0)
    if not nonzero[0] > 0:
        return None
    rest = float(nonzero[directions]) if directions < len(nonzero) else 0.0
    return 1 - rest / float(nonzero[directions - 1]) if rest else 1.0


def norm_matching_scales(
    lengths: Float64[Tensor, "layers experts"],
    tasks: Float64[Tensor, "layers experts"],
) -> Float64[Tensor, "layers experts"]:
    """The factors that scale each expert's residual, as a whole, to the mean norm of all.

    Args:
        lengths: norms of the residuals.
        tasks: norms of the whole task vectors; a residual below `NEGLIGIBLE` of it gets the factor
            0.
    """
    norms, whole = lengths.norm(dim=0, keepdim=True), tasks.norm(dim=0, keepdim=True)
    goal = norms.mean(1, keepdim=True)
    return torch.where(norms > NEGLIGIBLE * whole, goal / norms, 0.0).expand_as(lengths)
