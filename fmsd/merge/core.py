"""The core that specialists share: directions of the space of weights, found in the Gram matrix of their task vectors alone."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from fmsd.errors import InputError

Normalise = Literal["none", "task"]
"""Whether the directions come from the task vectors as they are, or each scaled to length 1."""

Matching = Literal["global", "layer", "none"]
"""Where residuals are brought to their mean norm: over the whole model, in every tensor, or nowhere."""

NEGLIGIBLE = 1e-5
"""A residual of this share of its task vector is rounding, and is not scaled up to the norm of the others."""

LEAST_GAP = 0.3
"""With a smaller spectral gap, a little noise turns the core's directions into others."""

LARGEST_SHARE = 0.6
"""With a larger share, the core is one specialist's task vector rather than what all have in common."""


class Core(NamedTuple):
    """How task vectors fall into a core and residuals: by the same linear combinations in every tensor.

    Args:
        directions: number k of directions that span the core.
        normalise: whether they come from the task vectors as they are, or each scaled to length 1.
        matrix: the matrix whose first k eigenvectors they come from: C, or what was made of it.
        weights: core = sum_j weights_j tau_j.
        shared, mix: the projection of tau_i onto the directions is sum_c shared_ic sum_j mix_cj
            tau_j.
        shares: of each specialist in the core, |weights_i| ||tau_i|| over the sum of all; None
            where there is no core.
        gap: (lambda_k - lambda_(k+1)) / lambda_k of the matrix's eigenvalues, 1 where nothing is
            left beside the k directions; None where there is no core.
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
        """Reasons to doubt that the core is knowledge which all specialists share.

        Args:
            labels: the specialists' names.
        """
        energies = self.matrix.diagonal().tolist()
        unmoved = [
            f"{label} is the base itself: leave it out"
            for label, energy in zip(labels, energies, strict=True)
            if not energy
        ]
        found = list(unmoved)
        if self.gap is not None and self.gap < LEAST_GAP:
            found.append(
                "The core is not determined: the spectral gap behind its "
                f"{'direction' if self.directions == 1 else 'directions'} is "
                f"{self.gap:.2f}, below {LEAST_GAP:g}, so that a little noise would give another "
                "core"
            )
        if not unmoved and self.shares is not None and max(self.shares) > LARGEST_SHARE:
            place = max(range(len(self.shares)), key=self.shares.__getitem__)
            cure = (
                ": its task vector is longer than the others or nearer to them; merger=r2m "
                "merger.normalise=task takes the length out"
            )
            found.append(
                f"{labels[place]} alone makes {self.shares[place]:.0%} of the "
                f"core{cure if self.normalise == 'none' else ''}"
            )
        return found


def leading_core(
    gram: Float64[Tensor, "experts experts"],
    directions: int,
    normalise: Normalise = "none",
    centre: bool = False,
) -> Core:
    """The core along the leading directions of the task vectors.

        R = C / (n n^T),  n_i = sqrt(C_ii);  u = first k eigenvectors of R;  W = u / n          (`task`; with `none`, n = 1)
        shared = C W (W^T C W)^-1,  mix = W^T,  core = W mean_i shared_i

    Args:
        gram: inner products C of the task vectors.
        directions: number k of directions, from 1 to the number of specialists.
        centre: take the directions from the vectors less their mean.

    Raises:
        InputError: more directions than specialists.
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
    if centre:
        matrix = matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()
    energies, vectors = torch.linalg.eigh(matrix)
    there = energies > 1e-12 * energies[-1]
    combined = vectors[:, first] / units[:, None]
    shared = torch.where(
        there[first], gram @ combined / energies[first], 0.0
    )  # W^T C W is the diagonal matrix of the eigenvalues
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
    """(lambda_k - lambda_(k+1)) / lambda_k of eigenvalues, largest first; 1 where those behind the k-th are zero, None where all are."""
    found = torch.where(energies > 1e-12 * energies[0], energies, 0.0)
    if not found[0] > 0:
        return None
    rest = float(found[directions]) if directions < len(found) else 0.0
    return 1 - rest / float(found[directions - 1]) if rest else 1.0


def norm_matching_scales(
    lengths: Float64[Tensor, "layers experts"],
    tasks: Float64[Tensor, "layers experts"],
    matching: Matching = "global",
) -> Float64[Tensor, "layers experts"]:
    """The factors that bring residuals to their mean norm; 0 where next to nothing of a task vector is left.

    Args:
        lengths: norms of the residuals.
        tasks: norms of the whole task vectors.
    """
    own, whole = lengths, tasks
    if matching == "global":
        own, whole = own.norm(dim=0, keepdim=True), whole.norm(dim=0, keepdim=True)
    goal = own if matching == "none" else own.mean(1, keepdim=True)
    return torch.where(own > NEGLIGIBLE * whole, goal / own, 0.0).expand_as(lengths)
