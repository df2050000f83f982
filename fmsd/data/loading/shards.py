"""Training frames in the order of a pack's tars, so that an epoch reads each tar once."""

import hashlib
import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from fmsd.data.loading.sampler import Places
from fmsd.data.mirror import fetch_tar, remote_size
from fmsd.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shards:
    """Every row once per epoch: the tars in a new order, the frames of `buffer` tars mixed.

    Frames of tars that are not in the same block never share a batch, but at the ends of blocks.

    Args:
        tars: the files of the tars.
        tar: the position in `tars` of each row's tar.
        domain: the domain id of each row.
        size: number of frames in a batch.
        buffer: number of tars in a block.
    """

    group: ClassVar[int] = 1

    tars: Sequence[str]
    tar: Int[np.ndarray, " rows"]
    domain: Int[np.ndarray, " rows"]
    size: int
    buffer: int
    seed: int

    @property
    def batches(self) -> int:
        """Number of batches in an epoch; all are full but the last."""
        return math.ceil(len(self.tar) / self.size)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.tar)

    def blocks(self, epoch: int) -> Int[np.ndarray, " tars"]:
        """The block of each tar in an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        return rng.permutation(len(self.tars)) // self.buffer

    def __call__(self, epoch: int) -> Places:
        """A permutation of the rows, block by block."""
        shuffled = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.tar))
        rows = shuffled[np.argsort(self.blocks(epoch)[self.tar[shuffled]], kind="stable")]
        return rows, self.domain[rows]

    def digest(self) -> str:
        """SHA-256 of what the order depends on beside seed and rows."""
        return hashlib.sha256(self.tar.astype("<i8").tobytes() + b"%d" % self.buffer).hexdigest()


class FetchAhead:
    """Fetches the tars of the next block of an order while a block is read.

    Each process that loads frames fetches those that no other one does. What fails is left to the
    reader of the tar, which raises the error.
    """

    def __init__(self, order: Shards) -> None:
        self.order = order
        self.last = (-1, -1)
        self.blocks = order.blocks(0)
        self.epoch = 0

    def __call__(self, epoch: int, row: int) -> None:
        """Begins with the next block, if a row is the first of its block that this process reads.

        Args:
            epoch, row: of the frame that is read next.
        """
        if epoch != self.epoch:
            self.epoch, self.blocks = epoch, self.order.blocks(epoch)
        block = int(self.blocks[self.order.tar[row]])
        if (epoch, block) <= self.last:
            return
        self.last = (epoch, block)
        following = self.blocks == block + 1
        if not following.any():
            following = self.order.blocks(epoch + 1) == 0
        tars = [self.order.tars[int(tar)] for tar in np.flatnonzero(following)]
        threading.Thread(target=_fetch, args=(tars,), daemon=True).start()


def _fetch(tars: Sequence[str]) -> None:
    """Fetches the tars that are not there and that no other process fetches."""
    try:
        for tar in tars:
            if not Path(tar).is_file():
                fetch_tar(Path(tar), 0)
    except (InputError, OSError) as error:
        log.debug("Not fetched ahead: %s", error)


def fetch_ahead(order: object) -> FetchAhead | None:
    """What fetches ahead for an order; None where its tars are not at an address."""
    if isinstance(order, Shards) and remote_size(order.tars[0]) is not None:
        return FetchAhead(order)
    return None
