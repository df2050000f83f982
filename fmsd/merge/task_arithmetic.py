"""Task arithmetic (Ilharco et al., ICLR 2023, arXiv 2212.04089): theta_0 + scale * sum_i tau_i."""

from collections.abc import Iterator
from dataclasses import dataclass

from fmsd.merge.coefficients import check_coefficient_range
from fmsd.merge.task_vectors import Merged, Specialists


@dataclass(frozen=True, slots=True)
class TaskArithmetic:
    """Adds the task vectors to the base.

    Args:
        scale: factor on their sum, at least 0; 1 / experts gives the average of the weights.
    """

    scale: float = 0.4

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(scale=self.scale)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once."""
        for name in specialists.names:
            yield Merged(
                name,
                specialists.base_tensor(name).add_(
                    specialists.task_vectors(name).sum(0), alpha=self.scale
                ),
            )
