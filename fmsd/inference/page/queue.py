"""The queue of the page: uploads wait for their turn, and answers are kept for a while.

The server adds jobs in its thread, and the main thread works on them one after the other.
"""

import collections
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from fmsd.errors import InputError, sentence
from fmsd.machine_errors import machine_error

log = logging.getLogger(__name__)

MOST = 8
"""Jobs that are received, wait or run, at most: each has a file on the disk."""

KEPT = 16
"""Answers that are kept, at most."""

SECONDS = 900.0
"""How long they are kept."""

State = Literal["uploading", "waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class Answer:
    """What was found in a file.

    Args:
        document: as `predictions.json` of `fmsd predict`.
        page: as its `report.html`.
    """

    document: dict[str, Any]
    page: str


class Answering(Protocol):
    """Makes the answer about a file."""

    def __call__(self, file: Path, name: str, advance: Callable[[float], None]) -> Answer:
        """The answer.

        Args:
            name: of the file, for people.
            advance: called with the share of the work that is done; it may end the work.
        """
        ...


class QueueFullError(Exception):
    """As many jobs as may wait do so already."""


class _Cancelled(Exception):  # noqa: N818  it is no error
    """Nobody wants the answer any more."""


@dataclass(eq=False)
class Job:
    """A file that is to be predicted.

    Args:
        id: its name in addresses, which cannot be guessed.
        name: of the file, for people.
        file: the upload; it exists until the job has ended.
        fraction: the share of the work that is done.
        began, ended: when, by the clock of the queue; 0 before.
        message: why it failed, as a sentence.
    """

    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    name: str = ""
    file: Path | None = None
    state: State = "uploading"
    fraction: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    answer: Answer | None = None
    message: str = ""
    cancelled: bool = False

    def delete_file(self) -> None:
        """Deletes the upload."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


class JobQueue:
    """Jobs by their ids, from the upload until the answer is forgotten.

    Args:
        most: see `MOST`.
        kept: see `KEPT`.
        seconds: see `SECONDS`.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        most: int = MOST,
        kept: int = KEPT,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.kept, self.seconds, self.clock = most, kept, seconds, clock
        self._jobs: dict[str, Job] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()

    def admit(self) -> Job:
        """A new job, whose file is still received.

        Raises:
            QueueFullError: there are too many.
        """
        with self._changed:
            self._forget()
            if sum(not job.ended for job in self._jobs.values()) >= self.most:
                raise QueueFullError
            job = Job()
            self._jobs[job.id] = job
            return job

    def submit(self, job: Job) -> None:
        """Lets a job wait for its turn, now that its file is there."""
        with self._changed:
            job.state = "waiting"
            self._waiting.append(job)
            self._changed.notify()

    def find(self, key: str) -> Job | None:
        """The job of an id; None if there is none, or none any more."""
        with self._changed:
            self._forget()
            return self._jobs.get(key)

    def place(self, job: Job) -> int | None:
        """The place of a waiting job in the queue, from 1; None of any other."""
        with self._changed:
            return self._waiting.index(job) + 1 if job in self._waiting else None

    def seconds_of(self, job: Job) -> float:
        """How long a job has been worked on."""
        return (job.ended or self.clock()) - job.began if job.began else 0.0

    def drop(self, job: Job) -> None:
        """Forgets a job: an upload is deleted, work ends at the next frame."""
        with self._changed:
            job.cancelled = True
            self._jobs.pop(job.id, None)
            if job in self._waiting:
                self._waiting.remove(job)
            if job.state != "running":
                job.delete_file()

    def work(self, answering: Answering, patience: float) -> None:
        """Works on the next job, if there is one in time, and deletes its file.

        Args:
            patience: seconds to wait for one.
        """
        job = self._next(patience)
        if job is None or job.file is None:
            return

        def advance(fraction: float) -> None:
            if job.cancelled:
                raise _Cancelled
            job.fraction = min(fraction, 1.0)

        state: State = "failed"
        try:
            job.answer = answering(job.file, job.name, advance)
            state = "done"
        except _Cancelled:
            pass
        except Exception as error:
            job.message = failure(error)
        finally:
            job.delete_file()
            with self._changed:
                job.state, job.ended = state, self.clock()

    def _next(self, patience: float) -> Job | None:
        with self._changed:
            if not self._waiting:
                self._changed.wait(patience)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            job.state, job.began = "running", self.clock()
            return job

    def _forget(self) -> None:
        """Forgets answers that are too old or too many."""
        ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended)
        for place, job in enumerate(ended):
            if len(ended) - place > self.kept or self.clock() - job.ended > self.seconds:
                del self._jobs[job.id]


def failure(error: Exception) -> str:
    """Why a job failed, as a sentence; an error that nobody expects is logged."""
    refusal = error if isinstance(error, InputError) else machine_error(error)
    if refusal is not None:
        return str(refusal)
    log.error("A prediction failed", exc_info=error)
    return sentence("The prediction failed", "the terminal in which fmsd demo runs says why")
