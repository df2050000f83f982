"""R2M as its authors' released script computes it, which differs from the paper and from R2M here.

Park, Kim, Cho and Kwon, "Real-Aware Residual Model Merging for Deepfake Detection", 2025, arXiv
2509.24367; github.com/jinnnnnnnnn/R2M of 25 September 2025.

    C = sum_l gamma_l A_l A_l^T,  gamma_l = sqrt(P_l) / ||A_l||_F     A_l: experts x P_l
    core = U_k U_k^T mean_i tau_i                  U_k: the first k eigenvectors of C
    residual_i = tau_i - core                      not truncated, scaled to their mean norm
    theta = theta_0 + core + alpha ||core|| mean_i residual_i

Norms and biases are left out of C, and their core is the plain mean. The script multiplies its core
by gamma_l once more, which makes that of a large matrix thousands of times too long. This factor is
left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fmsd.merge.coefficients import check_coefficient_range
from fmsd.merge.core import Core, leading_core, norm_matching_scales
from fmsd.merge.task_vectors import Merged, Specialists


@dataclass(frozen=True, slots=True)
class R2MScript:
    """Merges specialists as the released script does, without its erroneous factor on the core.

    Core and residuals are linear combinations of the task vectors, so their norms follow from the
    Gram matrices, and the weights are read twice.

    Args:
        directions: number k of directions that span the core, from 1 to the number of specialists.
        alpha: weight of the residuals, in units of the core's norm.
    """

    directions: int = 1
    alpha: float = 0.6

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(1, directions=self.directions)
        check_coefficient_range(alpha=self.alpha)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Yields theta tensor by tensor, with the norms of its core and of its scaled residuals.

        Raises:
            InputError: there are more directions than specialists.
        """
        core = self.weights(specialists)
        cores, lengths = self.norms(specialists)
        scales = norm_matching_scales(lengths, specialists.gram.diagonal(dim1=1, dim2=2).sqrt())
        eta = self.alpha * cores.norm() / len(specialists.experts)
        # theta = theta_0 + sum_j merged_j tau_j
        merged = core + eta * (scales - scales.sum(1, keepdim=True) * core)
        for name, weights, norm, scaled in zip(
            specialists.names, merged, cores, lengths * scales, strict=True
        ):
            theta = specialists.base_tensor(name)
            for weight, task in zip(weights.tolist(), specialists.task_vectors(name), strict=True):
                theta.add_(task, alpha=weight)
            yield Merged(name, theta, {"core": float(norm), "residuals": scaled.tolist()})

    def core(self, specialists: Specialists) -> Core:
        """The core of all tensors but norms and biases.

        Raises:
            InputError: there are more directions than specialists.
        """
        lengths = specialists.gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()
        sizes = torch.tensor(specialists.sizes, dtype=torch.float64)
        gamma = torch.where(
            (lengths > 0) & ~affine_layers(specialists), sizes.sqrt() / lengths, 0.0
        )
        return leading_core((gamma[:, None, None] * specialists.gram).sum(0), self.directions)

    def weights(self, specialists: Specialists) -> Float64[Tensor, "layers experts"]:
        """The coefficients of the task vectors in the core of each tensor."""
        return torch.where(
            affine_layers(specialists)[:, None],
            1 / len(specialists.experts),
            self.core(specialists).weights,
        )

    def norms(
        self, specialists: Specialists
    ) -> tuple[Float64[Tensor, " layers"], Float64[Tensor, "layers experts"]]:
        """The norms of each tensor's core, and of its residuals before scaling."""
        core, grams = self.weights(specialists), specialists.gram
        residual = torch.eye(core.shape[1], dtype=core.dtype) - core[:, None]
        energies = torch.einsum("li,lij,lj->l", core, grams, core)
        residual_energies = torch.einsum("lij,ljk,lik->li", residual, grams, residual)
        return energies.clamp_min(0).sqrt(), residual_energies.clamp_min(0).sqrt()


def affine_layers(specialists: Specialists) -> Bool[Tensor, " layers"]:
    """A mask of the tensors that belong to normalisation layers or are biases."""
    return torch.tensor(
        [specialists.parts[name].affine for name in specialists.names], dtype=torch.bool
    )
