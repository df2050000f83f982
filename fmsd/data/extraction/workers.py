"""The extraction of many videos by a pool of processes, which a video may kill."""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from fmsd.console import progress
from fmsd.data.extraction.crops import extract_video
from fmsd.data.extraction.faces import FaceDetector
from fmsd.data.extraction.outcomes import VideoOutcome
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.processes import process_pool
from fmsd.errors import InputError

log = logging.getLogger(__name__)

HEARTBEAT = 10.0
"""Seconds between two notes on the progress, at most."""

DEATH = "the process died on it twice, of too little memory or in the detector or decoder"
"""Why a video failed that kills its process."""

MAX_DEATHS = 20
"""Videos in a row that may kill their process before the extraction is given up."""

_detect: FaceDetector | None = None
"""The face detector of a worker process."""


def _begin(detector: Callable[[], FaceDetector]) -> None:
    """Builds the face detector of a worker process."""
    global _detect  # noqa: PLW0603  a detector cannot be sent to a process
    _detect = detector()


def _work(source: SourceVideo, recipe: Recipe, out: Path, work: Path) -> VideoOutcome:
    """Extracts one video in a worker process."""
    assert _detect is not None
    return extract_video(source, _detect, recipe, out, work)


def extract_videos(
    sources: Sequence[SourceVideo],
    detector: Callable[[], FaceDetector],
    recipe: Recipe,
    out: Path,
    work: Path,
    workers: int,
    note: Callable[[int, int], None],
) -> Iterator[VideoOutcome]:
    """Extracts videos in several processes, in any order.

    Where a process dies, the videos that may have killed it are extracted again, one at a time: the
    one on which a process dies again has failed. When the extraction is interrupted, the videos in
    progress are left as well.

    Args:
        detector: builds the face detector, in every process.
        work: a folder on the disk of `out`, where crops are written first.
        workers: number of processes.
        note: called at least every `HEARTBEAT` seconds with the numbers of videos that are done
            and that failed.

    Raises:
        InputError: processes died on `MAX_DEATHS` videos in a row.
        OSError: crops cannot be written.
    """
    waiting, suspects = deque(sources), deque[SourceVideo]()
    counts = {"done": 0, "failed": 0}
    began, frames, deaths = time.monotonic(), 0, 0
    with progress("Extracting", len(sources), "videos") as advance:
        while waiting or suspects:
            alone = bool(suspects)
            size = 1 if alone else min(workers, len(waiting))
            for result in _run_pool(
                suspects if alone else waiting,
                detector,
                (recipe, out, work),
                size,
                lambda: note(*counts.values()),
            ):
                if isinstance(result, VideoOutcome):
                    outcome, deaths = result, 0
                elif alone:
                    outcome, deaths = VideoOutcome(result.video, failure=DEATH), deaths + 1
                else:
                    suspects.append(result)
                    continue
                if deaths == MAX_DEATHS:
                    raise InputError(
                        f"A process died on each of {MAX_DEATHS} videos in a row, the last of them "
                        f"{outcome.video}, of too little memory, or in the detector or decoder",
                        "correct the cause, or give fewer workers=, and run the same command again",
                    )
                frames += outcome.frames
                counts["failed" if outcome.failure else "done"] += 1
                advance(note=f"{frames / (time.monotonic() - began):.0f} frames/s")
                yield outcome
            if suspects and not alone:
                log.warning(
                    "A process died; the %d videos that were in work or next are extracted again, "
                    "one at a time.",
                    len(suspects),
                )
        note(*counts.values())


def _run_pool(
    queue: deque[SourceVideo],
    detector: Callable[[], FaceDetector],
    job: tuple[Recipe, Path, Path],
    workers: int,
    beat: Callable[[], None],
) -> Iterator[VideoOutcome | SourceVideo]:
    """Takes videos off a queue and extracts them, until it is empty or a process dies.

    A single process is given one video at a time.

    Args:
        job: the further arguments of `_work`.
        beat: called at least every `HEARTBEAT` seconds.

    Yields:
        The outcome of each video; a video itself if a process died while it was given out.
    """
    running: dict[Future[VideoOutcome], SourceVideo] = {}
    room, broken = 1 if workers == 1 else 2 * workers, False
    with (
        contextlib.suppress(BrokenProcessPool),
        process_pool(workers, _begin, (detector,)) as executor,
    ):
        while running or (queue and not broken):
            while queue and not broken and len(running) < room:
                try:
                    running[executor.submit(_work, queue[0], *job)] = queue[0]
                    queue.popleft()
                except BrokenProcessPool:
                    broken = True
            beat()
            for future in wait(running, HEARTBEAT, return_when=FIRST_COMPLETED).done:
                source = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken = True
                    yield source
                else:
                    yield future.result()
        if broken:
            raise BrokenProcessPool  # which ends the other processes at once
