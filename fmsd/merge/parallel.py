"""Tensors side by side: a few threads, each at work on a tensor of its own, are faster than all of them at work on one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 4
"""Threads at most: each holds the task vectors of a tensor."""

QUEUED_PER_THREAD = 2
"""Of the largest items, so many per thread may be under way; of smaller ones more."""


@contextmanager
def parallel_map() -> Iterator[
    Callable[[Callable[[Item], Result], Iterable[Item], Sequence[int]], Iterator[Result]]
]:
    """Gives a `map` whose results are made in threads, a few ahead of the one that is asked for, and come in the order of the items.

    It also takes the items' sizes, by which it knows how many may be in memory.
    """
    threads = torch.get_num_threads()
    workers = min(MAX_THREADS, threads)

    def mapped(
        work: Callable[[Item], Result], items: Iterable[Item], sizes: Sequence[int]
    ) -> Iterator[Result]:
        waiting: deque[tuple[Future[Result], int]] = deque()
        for item, size in zip(items, sizes, strict=True):
            waiting.append((pool.submit(work, item), size))
            while sum(own for _, own in waiting) > QUEUED_PER_THREAD * workers * max(sizes):
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()

    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            yield mapped
        finally:
            torch.set_num_threads(
                threads
            )  # the last thread that set its own number set that of later ones
