"""TIES-merging: trim, elect signs, merge what agrees (Yadav et al., NeurIPS 2023, arXiv 2306.01708)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fmsd.merge.task_vectors import BLOCK, Merged, Specialists, in_range, one_of
from fmsd.shares import floor_share

HALF = 1 << 16
"""A float32 without its sign orders like the integer of its bits, and that one like its upper, then its lower 16 bits."""


@dataclass(frozen=True, slots=True)
class TIES:
    """theta_0 + scale * m, each entry of m the mean of the trimmed task vectors' entries that have the sign of their sum.

    Args:
        density: share of each task vector that is kept, its largest entries by magnitude, from 0 to
            1.
        scale: factor on the merged task vector, at least 0.
        trim: a task vector is trimmed as a whole (`model`), or every tensor to the same share
            (`tensor`).
    """

    density: float = 0.2
    scale: float = 1.0
    trim: Literal["model", "tensor"] = "model"

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        in_range(high=1.0, density=self.density)
        in_range(scale=self.scale)
        one_of(("model", "tensor"), trim=self.trim)

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert three times with `model`, once with `tensor`."""
        least, experts = None, len(specialists.experts)
        if self.trim == "model":
            numbers = sum(specialists.base[name].numel() for name in specialists.names)
            least = threshold(
                lambda: (_rows(specialists, name) for name in specialists.names),
                experts,
                self._kept(numbers),
            )
        for name in specialists.names:
            tasks = _rows(specialists, name)
            own = (
                threshold(lambda tasks=tasks: [tasks], experts, self._kept(tasks.shape[1]))
                if least is None
                else least
            )
            merged = torch.cat(
                [elected(block, own) for block in tasks.split(BLOCK // experts, dim=1)]
            )
            start = specialists.start(name)
            yield Merged(name, start.add_(merged.view(start.shape), alpha=self.scale))

    def _kept(self, numbers: int) -> int:
        return max(1, floor_share(self.density, numbers)) if self.density else 0


def elected(
    tasks: Float[Tensor, "experts numbers"], least: Float[Tensor, " experts"]
) -> Float[Tensor, " numbers"]:
    """The mean of the entries that have the sign of the sum, entries below `least` left out; zero where the sum is. Overwrites `tasks`."""
    tasks.masked_fill_(tasks.abs() < least[:, None], 0.0)
    sign = tasks.sum(0).sign_()
    agreeing = tasks.mul_(sign).clamp_(min=0.0)
    return agreeing.sum(0).div_(agreeing.count_nonzero(0).clamp_(min=1)).mul_(sign)


def threshold(
    read: Callable[[], Iterable[Tensor]], experts: int, kept: int
) -> Float[Tensor, " experts"]:
    """The `kept`-th largest magnitude of every expert's numbers, exactly; infinite for none. Where several are as large, all pass it.

    The first pass counts the upper half of the magnitudes' bits, the second the lower half of those
    with the right upper half.

    Args:
        read: begins a pass over the numbers, in pieces of shape (experts, numbers); only one is
            held at a time.
    """
    if not kept:
        return torch.full((experts,), torch.inf)
    upper, rest = _place(
        _counted(read(), torch.zeros(experts, dtype=torch.int64), 16), torch.full((experts,), kept)
    )
    lower, _ = _place(_counted(read(), upper << 16, 0), rest)
    return ((upper << 16) + lower).to(torch.int32).view(torch.float32)


def _counted(
    pieces: Iterable[Tensor], origin: Int[Tensor, " experts"], shift: int
) -> Int[Tensor, "experts bins"]:
    """How many magnitudes of each expert lie in each of `HALF` bins, whose first begins at `origin`; they are 2^shift wide, all as bits."""
    counts = torch.zeros(
        len(origin), HALF + 2, dtype=torch.int64
    )  # the bins at both ends take what lies outside
    for tasks in pieces:
        for row, first, count in zip(tasks, origin.tolist(), counts, strict=True):
            for block in row.split(BLOCK):
                bits = (
                    (block.view(torch.int32) & 0x7FFFFFFF).sub_(first).bitwise_right_shift_(shift)
                )
                count.add_(torch.bincount(bits.clamp_(-1, HALF).add_(1), minlength=HALF + 2))
    return counts[:, 1:-1]


def _place(
    counts: Int[Tensor, "experts bins"], kept: Int[Tensor, " experts"]
) -> tuple[Int[Tensor, " experts"], Int[Tensor, " experts"]]:
    """The bin that holds each expert's `kept`-th largest number, and which one it is in there, from 1."""
    falling = counts.flip(1)
    above = falling.cumsum(1)
    step = (above < kept[:, None]).sum(1, keepdim=True)
    before = (above - falling).gather(1, step)
    return counts.shape[1] - 1 - step[:, 0], kept - before[:, 0]


def _rows(specialists: Specialists, name: str) -> Float[Tensor, "experts numbers"]:
    return specialists.tasks(name).reshape(len(specialists.experts), -1)
