"""DARE: drop and rescale (Yu et al., ICML 2024, arXiv 2311.03099), then task arithmetic."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fmsd.merge.coefficients import check_coefficient_choice, check_coefficient_range
from fmsd.merge.task_vectors import Merged, Specialists


@dataclass(frozen=True, slots=True)
class DARE:
    """theta_0 + scale * sum_i m_i tau_i / (1 - drop_rate).

    Every entry of m_i is 0 with probability `drop_rate`, else 1.

    Args:
        drop_rate: from 0, which is task arithmetic, to 1, which is the base.
        scale: factor on the sum, at least 0.
        seed: seed of m_i, together with the tensor's name and the expert's index.
    """

    drop_rate: float = 0.9
    scale: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(high=1.0, drop_rate=self.drop_rate)
        check_coefficient_range(scale=self.scale, seed=self.seed)
        check_coefficient_choice((int(self.seed),), seed=self.seed)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once."""
        factor = self.scale / (1 - self.drop_rate) if self.drop_rate < 1 else 0.0
        for name in specialists.names:
            tasks = specialists.task_vectors(name)
            for index, task in enumerate(tasks):
                task.masked_fill_(
                    torch.rand(task.shape, generator=tensor_generator(self.seed, name, index))
                    < self.drop_rate,
                    0.0,
                )
            yield Merged(name, specialists.base_tensor(name).add_(tasks.sum(0), alpha=factor))


def tensor_generator(seed: int, name: str, index: int) -> torch.Generator:
    """The random generator of one tensor of one expert, the same in every process."""
    digest = hashlib.sha256(f"{seed} {index} {name}".encode()).digest()
    # torch takes seeds of 63 bits on all platforms
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
