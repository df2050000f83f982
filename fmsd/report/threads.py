"""Work on many tests by several threads; polars and torch compute without Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from fmsd.metrics.table import single_torch_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results of work on all items, in their order, by one thread per processor core.

    Meanwhile torch has one thread in each of them and in this one: more would wait for each other.
    Few results are kept waiting, so that memory does not depend on the number of items.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    with single_torch_thread():
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > cores + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
