"""The extraction of many videos by a pool of processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from fmsd.console import progress
from fmsd.data.extraction.crops import extract_video
from fmsd.data.extraction.faces import FaceDetector
from fmsd.data.extraction.outcomes import VideoOutcome
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.processes import process_pool
from fmsd.errors import InputError

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
) -> Iterator[VideoOutcome]:
    """Extracts videos in several processes, in any order.

    When it is interrupted, the videos in progress are left as well.

    Args:
        detector: builds the face detector, in every process.
        work: a folder on the disk of `out`, where crops are written first.
        workers: number of processes.

    Raises:
        InputError: a process died.
        OSError: crops cannot be written.
    """
    if not sources:
        return
    waiting = iter(sources)
    running: dict[Future[VideoOutcome], SourceVideo] = {}
    began, frames = time.monotonic(), 0
    with (
        progress("Extracting", len(sources), "videos") as advance,
        process_pool(min(workers, len(sources)), _begin, (detector,)) as executor,
    ):
        try:
            while True:
                for source in islice(waiting, 2 * workers - len(running)):
                    running[executor.submit(_work, source, recipe, out, work)] = source
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del running[future]
                    frames += outcome.frames
                    advance(note=f"{frames / (time.monotonic() - began):.0f} frames/s")
                    yield outcome
        except BrokenProcessPool as error:
            names = ", ".join(
                str(source.file or source.video) for source in list(running.values())[:workers]
            )
            raise InputError(
                "A process died, of too little memory or in the decoder, while extracting one of "
                f"{names}",
                "run the same command again with fewer workers=, or move that video away",
            ) from error
