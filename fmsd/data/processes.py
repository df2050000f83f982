"""Processes that read files beside each other."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

if hasattr(os, "register_at_fork"):
    # What a forked process inherited is not its to free: FFmpeg waits for ever for threads of its
    # own that a fork does not copy.
    os.register_at_fork(after_in_child=gc.freeze)


def die_with_parent(parent: int) -> None:
    """Ends this process with the one that started it, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _begin(parent: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    if initializer is not None:
        initializer(*initargs)


def available_cores() -> int:
    """The processor cores that this process may use, which taskset or a cluster's queue may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(
    workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of processes that begin with what this one has imported, on Linux, and by the system's own way elsewhere, where that is not safe."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, context, _begin, (os.getpid(), initializer, initargs))
