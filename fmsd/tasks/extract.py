"""Extraction: face crops and a manifest from videos or images, over processes and shards, taken up again where it stopped."""

import contextlib
import errno
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data import manifest as manifests
from fmsd.data.extraction import RECORD, Outcome, Recipe, Source, done, first, records, sources
from fmsd.data.extraction import extract as extract_one
from fmsd.data.faces import Finder
from fmsd.data.manifest import Manifest
from fmsd.data.processes import pool
from fmsd.data.sources import extracted
from fmsd.data.video import DECODER
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.report.console import counting, show
from fmsd.report.run import locked, write
from fmsd.types import Problem

log = logging.getLogger(__name__)

SETTINGS = "extract.json"
"""How the crops of a folder were made; beside the manifest it marks the folder as one to train with."""

SHOWN = 10
"""So many failures are named on the terminal; all are in the file."""


def extract(data: DataModule, finder: Callable[[], Finder], recipe: Recipe, out: Path, shard: tuple[int, int] = (0, 1), workers: int = 1) -> int:
    """Makes crops of the videos that the data's root holds, and of them a manifest; returns the number of videos that could not be read.

    Videos that were done before are left as they are. With several shards the manifest is left to `fmsd index`.

    Args:
        finder: makes the face detector, in every process.
        shard: (number, of how many) part of the videos, for several machines.
        workers: processes.

    Raises:
        InputError: there is nothing to extract, `out` holds crops that were made otherwise, it cannot be written, or another process works on it.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers={workers} must be a whole number of at least 1", "null means one per core")
    number, shards = shard
    if not 0 <= number < shards:
        raise InputError(f"shard={number}/{shards} does not exist", f"shards are counted from 0 to {shards - 1}")
    about = finder().about  # what is wrong with it is said before anything is written
    found = asked(data)
    settle(out, {"decoder": DECODER, "detector": about} | asdict(recipe))
    own, name = found[number::shards], str(data.name) if shards == 1 else f"{data.name}-{number}-of-{shards}"
    try:
        with working(out, name) as work:
            left = [source for source in own if not done(source, out)]
            if len(left) < len(own):
                log.info("%d of %d videos are done already.", len(own) - len(left), len(own))
            outcomes = list(worked(left, finder, recipe, out, work, workers))
            failures = tell(outcomes, out / f"failures-{name}.csv")
    except OSError as error:
        raise refused(out, error) from error
    if shards == 1:
        join(out)
    return failures


def asked(data: DataModule) -> list[Source]:
    """The videos to extract; what is wrong with the copy is logged.

    Raises:
        InputError: there is none.
    """
    problems: list[Problem] = []
    try:
        found = sources(data.source(data.place), problems)
    finally:
        manifests.log_problems(problems)
    kept = first((source for source in found if not source.label or data.forgeries is None or source.domain in data.forgeries), data.videos)
    if not kept:
        raise InputError(f"No videos were found under {data.place}", "check the root and the layout that docs/data.md describes")
    return kept


def settle(out: Path, settings: dict[str, Any]) -> None:
    """Writes how crops are made into a folder, or compares it with what stands there.

    Raises:
        InputError: the folder's crops were made otherwise, or it cannot be written.
    """
    before = manifests.made(out)
    if before is not None:
        if differing := [name for name in settings if before.get(name) != settings[name]]:
            name = differing[0]
            raise InputError(f"The crops in {out} were made with {name}={before.get(name)}, not {settings[name]}", "choose another out=FOLDER")
        return
    try:
        held = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
        if held and not (out / SETTINGS).is_file():  # another shard may have begun meanwhile
            raise InputError(f"{out} holds something else", "choose an empty or new folder as out=FOLDER")
        write(out / SETTINGS, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise refused(out, error) from error


@contextlib.contextmanager
def working(out: Path, name: str) -> Iterator[Path]:
    """A folder for what is being written, which belongs to this process alone; what a killed one left there is removed.

    Raises:
        InputError: another process is at work on the same videos.
    """
    place = out / ".work" / name
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a+") as file:
        if not locked(file, patience=1):
            raise InputError(f"Another process is extracting {name} into {out}", "wait for it, or choose another out=FOLDER")
        for left in place.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        try:
            yield place
        finally:
            shutil.rmtree(place)
            with contextlib.suppress(OSError):  # other shards are at work
                place.parent.rmdir()


def refused(out: Path, error: OSError) -> InputError:
    """A sentence for what keeps crops from being written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"There is no space left in {out}", "make room and run the same command again: it goes on where it stopped")
    return InputError(f"{error.filename or out} cannot be written ({error.strerror or error})", "choose another out=FOLDER")


# ---- processes

_find: Finder | None = None
"""The face detector of a worker process."""


def _begin(finder: Callable[[], Finder]) -> None:
    """Sets a worker process up."""
    global _find  # noqa: PLW0603  a process's own detector: it cannot be sent
    _find = finder()


def _work(source: Source, recipe: Recipe, out: Path, work: Path) -> Outcome:
    assert _find is not None
    return extract_one(source, _find, recipe, out, work)


def worked(left: Sequence[Source], finder: Callable[[], Finder], recipe: Recipe, out: Path, work: Path, workers: int) -> Iterator[Outcome]:
    """Extracts videos in several processes, in any order; on Ctrl-C those at work are finished and the others left.

    Raises:
        InputError: a process died.
        OSError: crops cannot be written.
    """
    if not left:
        return
    workforce = pool(min(workers, len(left)), _begin, (finder,))
    waiting, running, began, frames = iter(left), dict[Future[Outcome], Source](), time.monotonic(), 0
    with counting("Extracting", len(left), "videos") as advance:
        try:
            while True:
                for source in islice(waiting, 2 * workers - len(running)):
                    running[workforce.submit(_work, source, recipe, out, work)] = source
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del running[future]
                    frames += outcome.frames
                    advance(note=f"{frames / (time.monotonic() - began):.0f} frames/s")
                    yield outcome
        except BrokenProcessPool as error:
            names = ", ".join(str(source.file or source.video) for source in list(running.values())[:workers])
            raise InputError(
                f"A process died, of too little memory or in the decoder, at work on one of {names}",
                "run the same command again with fewer workers=, or move that video away",
            ) from error
        finally:
            workforce.shutdown(cancel_futures=True)


# ---- the end


def tell(outcomes: Sequence[Outcome], path: Path) -> int:
    """Says what was made, keeps the list of what could not be read, and returns its length."""
    failures = sorted((outcome for outcome in outcomes if outcome.failure), key=lambda outcome: outcome.video)
    looked, damaged, crops = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("frames", "damaged", "crops"))
    log.info("%d videos, %d frames, %d crops; every frame's fate is in its video's %s.", len(outcomes) - len(failures), looked, crops, RECORD)
    if damaged:
        names = [outcome.video for outcome in outcomes if outcome.damaged]
        log.warning("%d frames of %d videos cannot be decoded, of %s among them; they are left out.", damaged, len(names), names[0])
    if faceless := [outcome.video for outcome in outcomes if not outcome.failure and not outcome.crops]:
        log.warning("%d videos show no face, %s among them; they are recorded, but are in no table of results.", len(faceless), faceless[0])
    if failures:
        rows = [[outcome.video, outcome.failure] for outcome in failures]
        show(f"{len(failures)} videos could not be read", ["video", "why"], rows[:SHOWN], f"All are in {path}; the same command tries them again")
        write(path, pl.DataFrame(rows, schema=["video", "why"], orient="row").write_csv())
    else:
        path.unlink(missing_ok=True)
    return len(failures)


def join(out: Path) -> Manifest:
    """Writes the manifest of all crops in a folder.

    Raises:
        InputError: there is not a single one.
    """
    if not any(frame["status"] == "face" for _, record in records(out) for frame in record["frames"]):
        raise InputError(f"None of the videos in {out} shows a face that was found", "lower detector.score, or look at them")
    manifest = manifests.collect(extracted.scan(out), out).validate()
    manifest.write(out / "manifest.parquet")
    print(f"{len(manifest)} crops of {manifest.videos} videos lie in {out}; train and test with data.root={out}")
    return manifest
