"""Parallel work on tensors: a few threads on a tensor each are faster than all of them on one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 4
"""Largest number of threads, each of which holds the task vectors of a tensor."""

QUEUED_PER_THREAD = 2
"""Number of items per thread in progress, of the largest size; more of smaller ones."""


@contextmanager
def parallel_map() -> Iterator[
    Callable[[Callable[[Item], Result], Iterable[Item], Sequence[int]], Iterator[Result]]
]:
    """Yields a `map` that computes in threads, a few items ahead, and keeps the order of items.

    Beside function and items it takes the items' sizes, which limit how many are in memory.
    """
    threads = torch.get_num_threads()
    workers = min(MAX_THREADS, threads)

    def threaded_map(
        work: Callable[[Item], Result], items: Iterable[Item], sizes: Sequence[int]
    ) -> Iterator[Result]:
        waiting: deque[tuple[Future[Result], int]] = deque()
        for item, size in zip(items, sizes, strict=True):
            waiting.append((pool.submit(work, item), size))
            while sum(pending for _, pending in waiting) > QUEUED_PER_THREAD * workers * max(sizes):
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()

    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            yield threaded_map
        finally:
            pool.shutdown(cancel_futures=True)  # after an interruption, without those not begun
            # A thread that sets its own number also sets that of threads started later.
            torch.set_num_threads(threads)
