"""The batches of training: their frames, their order, and the share of each process."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch.utils.data import Sampler

from fmsd.data.loading.quotas import cell_quotas, fill_batches, mean_repeats
from fmsd.errors import InputError
from fmsd.types import PADDING

Place = tuple[int, int, int, int]
"""(epoch, row, domain id, occurrence) of a frame in a batch.

The domain id of a frame that only pads a process's share is `PADDING`. The occurrence counts how
often the row came before in the epoch, over the joint batches of all processes; it is part of the
seed of augmentation.
"""

UNASSIGNED = -1
"""The domain id of a real frame without a domain: each epoch deals such frames to all domains."""

Places = tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]
"""Rows and domain ids of an epoch's joint batches, one batch after the other."""


@runtime_checkable
class Order(Protocol):
    """The joint batches of all processes, which depend on (seed, epoch) alone."""

    group: ClassVar[int]
    """Number of places, one after the other in a batch, that a process gets together."""

    @property
    def size(self) -> int:
        """Number of frames in a batch; only the last one may have fewer."""
        ...

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        ...

    @property
    def frames(self) -> int:
        """Number of different frames that the epochs show."""
        ...

    def __call__(self, epoch: int) -> Places:
        """The batches of an epoch."""
        ...


class ProcessBatches(Sampler[list[Place]]):
    """A process's share of the batches of an order.

    Process `rank` takes every `processes`-th group of places of each batch; where none is left for
    it, the first group of the batch as padding. The length is that of a whole epoch, also after a
    resume.

    Args:
        epoch, start: the epoch that training begins with, and the first batch to yield in it.
    """

    def __init__(
        self, order: Order, rank: int = 0, processes: int = 1, epoch: int = 0, start: int = 0
    ) -> None:
        self.order, self.rank, self.processes = order, rank, processes
        self.epoch, self.start = epoch, start

    @property
    def sampler(self) -> "ProcessBatches":
        """This sampler: Lightning calls `set_epoch` on the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, as Lightning does before each; a new one begins with its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> Iterator[list[Place]]:
        return self._shares(self.epoch, self.start, *self.order(self.epoch))

    def _shares(
        self,
        epoch: int,
        start: int,
        rows: Int[np.ndarray, " places"],
        domains: Int[np.ndarray, " places"],
    ) -> Iterator[list[Place]]:
        """This process's share of each batch; occurrences count the batches before `start`, too."""
        size, group, occurrences = self.order.size, self.order.group, count_occurrences(rows)
        for begin in range(start * size, len(rows), size):
            batch = np.arange(begin, min(begin + size, len(rows)))
            share = batch[(batch - begin) // group % self.processes == self.rank]
            first = batch[:group]
            yield zip_places(epoch, rows[share], domains[share], occurrences[share]) or zip_places(
                epoch, rows[first], np.full(len(first), PADDING), occurrences[first]
            )


@dataclass(frozen=True)
class Shuffle:
    """Every row once per epoch.

    Args:
        domain: the domain id of each row.
        size: number of frames in a batch.
    """

    group: ClassVar[int] = 1

    domain: Int[np.ndarray, " rows"]
    size: int
    seed: int

    @property
    def batches(self) -> int:
        """Number of batches in an epoch; all are full but the last."""
        return math.ceil(len(self.domain) / self.size)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.domain)

    def __call__(self, epoch: int) -> Places:
        """A permutation of the rows."""
        rows = np.random.default_rng([self.seed, epoch]).permutation(len(self.domain))
        return rows, self.domain[rows]


@dataclass(frozen=True)
class EveryDomain:
    """Batches with real and fake frames of every domain.

    A cell is one class of one domain; within an epoch each frame belongs to one cell. The frames of
    a cell are taken in one random permutation after the other: a small cell is repeated in an
    epoch, a large one may not be exhausted. No batch has a frame twice unless it takes more of a
    cell than the cell has. An epoch has as many batches as one of `Shuffle`, all of full size.

    Args:
        label: 0 real, 1 fake, of each row.
        domain: the domain id of each row; `UNASSIGNED` for real frames without one, which each
            epoch distributes anew and evenly over all domains.
        names: the domains in the order of their ids.
        size: number of frames in a batch.
        frequency: `balanced` gives each cell an equal share of a batch, and the remainder to each
            in turn; `natural` a share in proportion to its number of frames, but at least one.

    Raises:
        InputError: a domain lacks a class, or a batch has fewer places than cells.
    """

    group: ClassVar[int] = 1

    label: Int[np.ndarray, " rows"]
    domain: Int[np.ndarray, " rows"]
    names: Sequence[str]
    size: int
    frequency: str
    seed: int

    def __post_init__(self) -> None:
        """Checks that every cell has frames, and every batch a place for each cell."""
        for name, counts in zip(self.names, self.counts.reshape(-1, 2), strict=True):
            if not counts.all():
                raise InputError(
                    f"The domain {name!r} has no {'fake' if counts[0] else 'real'} training "
                    "frames, but a batch holds both classes of each domain",
                    "leave it out of data.train=[...], or choose another data.domains or "
                    "data.batches=shuffle",
                )
        if self.size < len(self.counts):
            raise InputError(
                f"data.batch_size={self.size} has no room for both classes of {len(self.names)} "
                "domains",
                f"raise it to at least {len(self.counts)}, or choose another data.domains or "
                "data.batches=shuffle",
            )

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(len(self.label) / self.size)

    @property
    def frames(self) -> int:
        """Number of frames; an epoch may not show all of them."""
        return len(self.label)

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, " cells"]:
        """Number of frames of each cell, in every epoch; ordered by domain, real before fake."""
        return np.bincount(self._cells(0), minlength=2 * len(self.names))

    @property
    def repeats(self) -> Float[np.ndarray, "domains 2"]:
        """Mean number of times that an epoch takes a real and a fake frame of each domain."""
        return mean_repeats(self.counts, self.size, self.batches, self.frequency).reshape(-1, 2)

    def quotas(self, epoch: int) -> Int[np.ndarray, "batches cells"]:
        """Number of frames of each cell in each batch of an epoch."""
        return cell_quotas(self.counts, self.size, self.batches, self.frequency, epoch)

    def __call__(self, epoch: int) -> Places:
        """The batches of an epoch, ordered by cell, so that processes share each cell evenly."""
        members = np.split(
            np.argsort(self._cells(epoch), kind="stable"), np.cumsum(self.counts)[:-1]
        )
        rows, cells = fill_batches(members, self.quotas(epoch), (self.seed, epoch))
        return rows, cells // 2

    def _cells(self, epoch: int) -> Int[np.ndarray, " rows"]:
        """The cell of each row in an epoch: twice the domain id, plus the label."""
        domain, loose = self.domain.copy(), np.flatnonzero(self.domain == UNASSIGNED)
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(loose)
        domain[shuffled] = np.arange(len(loose)) % len(self.names)
        return 2 * domain + self.label


class EndlessBatches(Sampler[list[Place]]):
    """Full batches without end; a batch may span the end of an epoch of the order."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Place]]:
        stream = itertools.chain.from_iterable(self._epochs())
        while True:
            yield list(itertools.islice(stream, self.order.size))

    def _epochs(self) -> Iterator[list[Place]]:
        for epoch in itertools.count():
            rows, domains = self.order(epoch)
            yield zip_places(epoch, rows, domains, count_occurrences(rows))


def zip_places(
    epoch: int,
    rows: Int[np.ndarray, " places"],
    domains: Int[np.ndarray, " places"],
    occurrences: Int[np.ndarray, " places"],
) -> list[Place]:
    """Rows, domain ids and occurrences of an epoch as a list of places."""
    return [
        (epoch, row, domain, occurrence)
        for row, domain, occurrence in zip(
            rows.tolist(), domains.tolist(), occurrences.tolist(), strict=True
        )
    ]


def count_occurrences(rows: Int[np.ndarray, " places"]) -> Int[np.ndarray, " places"]:
    """Number of times that the row of each place occurs before it."""
    order = np.argsort(rows, kind="stable")
    grouped = rows[order]
    counts = np.empty_like(order)
    counts[order] = np.arange(len(rows)) - np.searchsorted(grouped, grouped)
    return counts
