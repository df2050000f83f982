"""Pools of processes that read files in parallel."""

import contextlib
import functools
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

from fmsd.signals import leave_to_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of processor cores that this process may use, as limited by taskset or a queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def process_pool(
    workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool of processes, which end with the block and with this process.

    A block that fails waits for the work that has begun; one that is interrupted, or in which a
    process died, kills it. On Linux the processes are forked and begin with the imports of this
    process; elsewhere, where that is not safe, they are started by the system's default method.

    Args:
        workers: number of processes.
        initializer: called with `initargs` when a process begins.
    """
    prepare_fork()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(workers, context, _begin, (os.getpid(), initializer, initargs))
    try:
        yield executor
    except (KeyboardInterrupt, GeneratorExit, BrokenProcessPool):
        for process in {*multiprocessing.active_children()}.difference(others):
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def map_in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, lost: Result, per_task: int
) -> Iterator[Result]:
    """The results of work on all jobs, in order, where a job may kill its process.

    Where a process dies, the jobs that may have killed it are done again one at a time by a single
    process: the one on which that dies has the result `lost`.

    Args:
        workers: number of processes; 0 for this one, which a job may then kill.
        per_task: number of jobs that a process is given at once.
    """
    if not workers:
        yield from map(work, jobs)
        return
    done = suspects = 0  # jobs that are done, and the end of those that are done one at a time
    while done < len(jobs):
        alone = done < suspects
        with process_pool(1 if alone else workers) as pool:
            try:
                batch = jobs[done : suspects if alone else None]
                for result in pool.map(work, batch, chunksize=1 if alone else per_task):
                    yield result
                    done += 1
            except BrokenProcessPool:
                if alone:
                    yield lost
                    done += 1
                else:
                    suspects = done + per_task * workers
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


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


def start_worker(parent: int, rank: int = 0) -> None:
    """Prepares a worker process: it leaves signals to its parent, and OpenCV has one thread.

    Args:
        parent: the id of the process that started it.
        rank: its number, which loaders give.
    """
    leave_to_parent(parent)
    sys.excepthook = _report_error
    cv2.setNumThreads(0)  # inherited by a fork, but not where processes are started otherwise


def _report_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Prints an error of a worker's thread, unless the parent ended while it got a tensor."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _begin(parent: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    start_worker(parent)
    if initializer is not None:
        initializer(*initargs)
