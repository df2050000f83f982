"""TIES-merging: trim, elect signs, and merge the entries that agree with them.

Yadav et al., NeurIPS 2023, arXiv 2306.01708.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fmsd.merge.coefficients import check_coefficient_choice, check_coefficient_range
from fmsd.merge.task_vectors import BLOCK_ELEMENTS, Merged, Specialists
from fmsd.rounding import floor_share

HALF = 1 << 16
"""Number of values of 16 bits.

Magnitudes of float32 are ordered as their bits are: by the upper 16 bits, then by the lower ones.
"""


@dataclass(frozen=True, slots=True)
class TIES:
    """theta_0 + scale * m, with m the sign-elected mean of the trimmed task vectors.

    Each entry of m is the mean of the entries that have the sign of their sum.

    Args:
        density: share of each task vector to keep, its largest entries by magnitude, from 0 to 1.
        scale: factor on the merged task vector, at least 0.
        trim: trim a task vector as a whole (`model`), or every tensor to the same share (`tensor`).
    """

    density: float = 0.2
    scale: float = 1.0
    trim: Literal["model", "tensor"] = "model"

    def __post_init__(self) -> None:
        """Checks the coefficients."""
        check_coefficient_range(high=1.0, density=self.density)
        check_coefficient_range(scale=self.scale)
        check_coefficient_choice(("model", "tensor"), trim=self.trim)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert three times with `model`, once with `tensor`."""
        least, experts = None, len(specialists.experts)
        if self.trim == "model":
            elements = sum(specialists.sizes)
            least = magnitude_threshold(
                lambda: (_rows(specialists, name) for name in specialists.names),
                experts,
                self._kept(elements),
            )
        for name in specialists.names:
            tasks = _rows(specialists, name)
            thresholds = (
                magnitude_threshold(
                    lambda tasks=tasks: [tasks], experts, self._kept(tasks.shape[1])
                )
                if least is None
                else least
            )
            merged = torch.cat(
                [
                    sign_elected_mean(block, thresholds)
                    for block in tasks.split(BLOCK_ELEMENTS // experts, dim=1)
                ]
            )
            start = specialists.base_tensor(name)
            yield Merged(name, start.add_(merged.view(start.shape), alpha=self.scale))

    def _kept(self, elements: int) -> int:
        return max(1, floor_share(self.density, elements)) if self.density else 0


def sign_elected_mean(
    tasks: Float[Tensor, "experts elements"], least: Float[Tensor, " experts"]
) -> Float[Tensor, " elements"]:
    """The mean of the entries with the sign of the sum; 0 where the sum is 0.

    Args:
        tasks: overwritten.
        least: threshold per expert; entries of smaller magnitude are left out.
    """
    tasks.masked_fill_(tasks.abs() < least[:, None], 0.0)
    sign = tasks.sum(0).sign_()
    agreeing = tasks.mul_(sign).clamp_(min=0.0)
    return agreeing.sum(0).div_(agreeing.count_nonzero(0).clamp_(min=1)).mul_(sign)


def magnitude_threshold(
    read: Callable[[], Iterable[Tensor]], experts: int, kept: int
) -> Float[Tensor, " experts"]:
    """The exact `kept`-th largest magnitude of every expert; infinite for kept = 0.

    Ties all pass the threshold. The first pass counts the upper 16 bits of the magnitudes, the
    second the lower 16 bits of those with the right upper ones.

    Args:
        read: begins a pass over the elements, in pieces of shape (experts, elements), of which one
            is in memory at a time.
        experts: number of experts.
        kept: rank of the threshold, from 1; 0 keeps nothing.
    """
    if not kept:
        return torch.full((experts,), torch.inf)
    upper, rest = _locate(
        _histogram(read(), torch.zeros(experts, dtype=torch.int64), 16),
        torch.full((experts,), kept),
    )
    lower, _ = _locate(_histogram(read(), upper << 16, 0), rest)
    return ((upper << 16) + lower).to(torch.int32).view(torch.float32)


def _histogram(
    pieces: Iterable[Tensor], origin: Int[Tensor, " experts"], shift: int
) -> Int[Tensor, "experts bins"]:
    """Counts the magnitudes of each expert, as integers of their bits, in `HALF` bins.

    Args:
        origin: start of the first bin.
        shift: the bins are 2^shift wide.
    """
    # The two outermost bins collect the values outside.
    counts = torch.zeros(len(origin), HALF + 2, dtype=torch.int64)
    for tasks in pieces:
        for row, first, count in zip(tasks, origin.tolist(), counts, strict=True):
            for block in row.split(BLOCK_ELEMENTS):
                bits = (
                    (block.view(torch.int32) & 0x7FFFFFFF).sub_(first).bitwise_right_shift_(shift)
                )
                count.add_(torch.bincount(bits.clamp_(-1, HALF).add_(1), minlength=HALF + 2))
    return counts[:, 1:-1]


def _locate(
    counts: Int[Tensor, "experts bins"], kept: Int[Tensor, " experts"]
) -> tuple[Int[Tensor, " experts"], Int[Tensor, " experts"]]:
    """The bin of each expert's `kept`-th largest element, and its rank in there, from 1."""
    falling = counts.flip(1)
    above = falling.cumsum(1)
    step = (above < kept[:, None]).sum(1, keepdim=True)
    before = (above - falling).gather(1, step)
    return counts.shape[1] - 1 - step[:, 0], kept - before[:, 0]


def _rows(specialists: Specialists, name: str) -> Float[Tensor, "experts elements"]:
    return specialists.task_vectors(name).reshape(len(specialists.experts), -1)
