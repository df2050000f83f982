"""Pools of processes that read files in parallel."""

import ctypes
import functools
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2


def available_cores() -> int:
    """Number of processor cores that this process may use, as limited by taskset or a queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(
    workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of processes, which end with this one.

    On Linux they are forked and begin with the imports of this process; elsewhere, where that is
    not safe, they are started by the system's default method.

    Args:
        workers: number of processes.
        initializer: called with `initargs` when a process begins.
    """
    prepare_fork()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, context, _begin, (os.getpid(), initializer, initargs))


def prepare_fork() -> None:
    """Makes forks of this process safe, and keeps OpenCV to one thread in it and in them.

    OpenCV's threads are not copied by a fork: a child that uses them, or tries to end them, would
    wait forever. They are ended here, in the parent; processes are the parallelism.
    """
    cv2.setNumThreads(0)
    _freeze_inherited_objects()


@functools.cache
def _freeze_inherited_objects() -> None:
    """Keeps forked processes from freeing objects of their parent.

    Freeing one of FFmpeg's would wait forever for its threads, which a fork does not copy.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=gc.freeze)


def _begin(parent: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    cv2.setNumThreads(0)  # inherited by a fork, but not where processes are started otherwise
    if initializer is not None:
        initializer(*initargs)


def _die_with_parent(parent: int) -> None:
    """Ends this process with the one that started it, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
