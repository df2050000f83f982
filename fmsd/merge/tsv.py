"""TSV-M: merging of task singular vectors (Gargiulo et al., CVPR 2025, arXiv 2412.00081)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fmsd.linalg import Factors, dense_product
from fmsd.merge.coefficients import check_coefficient_range
from fmsd.merge.iso import polar_factor, singular_triplets
from fmsd.merge.task_vectors import Merged, Specialists


@dataclass(frozen=True, slots=True)
class TSVM:
    """theta_0 + scale * polar([U_1 .. U_N]) diag(s_1 .. s_N) polar([V_1 .. V_N])^T on matrices.

    U_i, s_i, V_i are the top 1/N of the singular triplets of tau_i. Other tensors become
    theta_0 + scale * mean_i tau_i.

    Args:
        scale: factor on the merged task vector, at least 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(scale=self.scale)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once; decomposes N + 2 matrices per merged one."""
        for name in specialists.names:
            start, tasks = specialists.base_tensor(name), specialists.task_vectors(name)
            part = specialists.parts[name]
            if part.kind == "matrix":
                slices = part.matrices(tasks, stack=1).transpose(0, 1)
                merged = torch.stack([decorrelated_sum(matrices) for matrices in slices]).view(
                    start.shape
                )
            else:
                merged = tasks.mean(0)
            yield Merged(name, start.add_(merged, alpha=self.scale))


def decorrelated_sum(tasks: Float[Tensor, "experts rows columns"]) -> Float[Tensor, "rows columns"]:
    """The sum of the tasks' top triplets, their vectors orthogonalised over tasks."""
    limit = max(1, min(tasks.shape[1:]) // len(tasks))
    triplets = [singular_triplets(task, limit) for task in tasks]
    u = torch.cat([each.u for each in triplets], 1)
    s = torch.cat([each.s for each in triplets])
    vt = torch.cat([each.vt for each in triplets])
    return dense_product(Factors(polar_factor(u), s, polar_factor(vt)))
