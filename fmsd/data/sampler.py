"""The order in which frames are seen in training."""

import itertools
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class Shuffle(Sampler[tuple[int, int]]):
    """Every row once per epoch as (epoch, row), in an order that depends on (seed, epoch) alone."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed, self.epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        return ((self.epoch, int(row)) for row in order)


class Endless(Sampler[tuple[int, int]]):
    """One epoch of `Shuffle` after the other, without end."""

    def __init__(self, rows: int, seed: int) -> None:
        self.order = Shuffle(rows, seed)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for epoch in itertools.count():
            self.order.set_epoch(epoch)
            yield from self.order
