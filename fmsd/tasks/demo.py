"""The demo: a local page that scores the images and videos that are dropped on it."""

import logging
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.media import Sampling, expected_frames
from fmsd.inference.page.queue import Answer, Answering, JobQueue
from fmsd.inference.page.server import check_installed, is_local, listen, page_address, serving
from fmsd.inference.prediction_files import prediction_document
from fmsd.inference.rendering import draw_page
from fmsd.inference.verdict import DEFAULT_AT
from fmsd.signals import Interrupted

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds between two looks at whether the server still answers."""


def demo(
    detector: Callable[[], LoadedDetector],
    sampling: Sampling | None = None,
    at: str = DEFAULT_AT,
    host: str = "127.0.0.1",
    port: int = 8000,
    limit: int = 500,
) -> None:
    """Serves the page until a signal ends it; files are scored one after the other.

    Ctrl-C is how it is meant to end, so it returns then; other signals are raised.

    Uploads lie in a temporary folder, each until it is answered; the folder goes with the server.

    Args:
        detector: loads the detector.
        sampling: which frames of a video are scored; None for the default.
        at: the threshold, see `fmsd.inference.verdict.judge`.
        host: an address of this machine.
        port: 0 for any that is free.
        limit: megabytes of an upload, at most.

    Raises:
        InputError: a package is missing, the port is taken, or the detector cannot be loaded.
    """
    check_installed()
    from fmsd.inference.page.guard import Guard  # noqa: PLC0415  an extra
    from fmsd.inference.page.routes import Routes  # noqa: PLC0415
    from fmsd.inference.page.uploads import MEGABYTE  # noqa: PLC0415

    with (
        listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="fmsd-demo-", ignore_cleanup_errors=True) as folder,
    ):
        loaded = detector()
        answering = file_answering(loaded, sampling or Sampling(), at)
        queue, local = JobQueue(), is_local(listener)
        routes = Routes(queue, Path(folder), limit * MEGABYTE, {"run": loaded.facts.name, "at": at})
        with serving(Guard(routes.app(), host, local), listener) as alive:
            if not local:
                log.warning(
                    "host=%s: whoever reaches this machine can send files to the page, which asks "
                    "for no password.",
                    host,
                )
            print(f"The page is at {page_address(listener, host)} (Ctrl-C ends it)", flush=True)
            try:
                while alive():
                    queue.work(answering, PATIENCE)
            except Interrupted as end:
                if end.number != signal.SIGINT:
                    raise
                print("The page has ended", flush=True)
                return
    raise RuntimeError("the server has ended by itself")


def file_answering(detector: LoadedDetector, sampling: Sampling, at: str) -> Answering:
    """The function that predicts a file and writes what it found as JSON and as HTML.

    Raises:
        InputError: the face detector cannot be built.
    """
    predictor = detector.predictor(sampling)

    def answer(file: Path, name: str, advance: Callable[[float], None]) -> Answer:
        expected, looked = expected_frames(file, sampling), 0

        def on_frame(_: float) -> None:
            nonlocal looked
            looked += 1
            advance(looked / expected)

        advance(0.0)
        found = predictor.predict(file, on_frame)
        message = found.message.replace(str(file), name)
        found = replace(found, path=name, message=message)
        verdict = detector.verdict(found, at)
        return Answer(
            prediction_document([found], [verdict], detector.facts, at),
            draw_page(detector, [found], [verdict]),
        )

    return answer
