"""Batches on their way from a loader process to the main process, in memory that is used again and again (Linux).

torch sends each tensor in shared memory of its own, whose pages the system has to find, clear, map
and free for every batch; beside decoding that takes longer than all else that a loader does. Here a
loader process keeps a few memory files and writes into one that the main process has let go of; the
numbers of a batch travel in the message itself. Nor is room needed in /dev/shm, of which containers
have little.
"""

import math
import mmap
import os
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info

from fmsd.types import Frames

KEPT = 8
"""Memory files that a loader process keeps; a batch beyond, where the main process holds on to many, gets one that it alone uses."""


class Memory:
    """Memory that two processes see; its last byte is 1 while the main process may still look at it."""

    def __init__(self, size: int) -> None:
        self.file = os.memfd_create("frames")
        os.ftruncate(self.file, size + 1)
        self.bytes = mmap.mmap(self.file, size + 1)

    def __del__(self) -> None:
        os.close(self.file)


class Mapped(mmap.mmap):
    """The same memory in the main process: it is let go of with the last tensor that looks at it."""

    owner = -1

    def __del__(self) -> None:
        if (
            self.owner == os.getpid()
        ):  # a process that was forked meanwhile has a copy of this object
            self[-1] = 0


class Parcel:
    """A batch that becomes `Frames` where it arrives."""

    def __init__(self, frames: Sequence[Frames]) -> None:
        self.shape = (len(frames), *frames[0].image.shape)
        self.memory = vacant(math.prod(self.shape))
        self.memory.bytes[-1] = 1
        pixels = np.frombuffer(self.memory.bytes, np.uint8, math.prod(self.shape)).reshape(
            self.shape
        )
        for place, frame in zip(pixels, frames, strict=True):
            place[:] = frame.image.numpy()
        self.numbers = np.array(
            [[int(number) for number in frame[1:]] for frame in frames], np.int64
        ).T.copy()

    def __reduce__(self) -> tuple[Callable[..., Frames], tuple[Any, ...]]:
        return opened, (DupFd(self.memory.file), self.shape, self.numbers)


_kept: list[Memory] = []


def vacant(size: int) -> Memory:
    """Memory of at least `size` bytes that nobody uses."""
    for memory in _kept:
        if memory.bytes[-1] == 0 and len(memory.bytes) > size:
            return memory
    memory = Memory(size)
    if len(_kept) < KEPT:
        _kept.append(memory)
    return memory


def opened(file: Any, shape: tuple[int, ...], numbers: np.ndarray) -> Frames:
    """The batch of a parcel.

    Args:
        file: the memory's descriptor, on its way between processes.
    """
    descriptor = file.detach()
    try:
        memory = Mapped(descriptor, 0)
    finally:
        os.close(descriptor)
    memory.owner = os.getpid()
    image = torch.frombuffer(memory, dtype=torch.uint8, count=math.prod(shape)).view(shape)
    return Frames(image, *torch.from_numpy(numbers))


def collate(frames: Sequence[Frames]) -> Frames | Parcel:
    """A batch of single frames, as torch's `default_collate` makes it."""
    if get_worker_info() is None or not hasattr(os, "memfd_create"):
        return default_collate(list(frames))
    return Parcel(frames)
