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

from fmsd.console import counting, show
from fmsd.data import manifest as manifests
from fmsd.data import pack
from fmsd.data.extraction.crops import (
    RECORD,
    Outcome,
    Recipe,
    Source,
    check_around,
    done,
    first,
    records,
    sources,
)
from fmsd.data.extraction.crops import extract as extract_one
from fmsd.data.extraction.faces import Finder
from fmsd.data.extraction.outdated import put_aside
from fmsd.data.extraction.video import DECODER
from fmsd.data.manifest import Manifest
from fmsd.data.processes import pool
from fmsd.data.sources import extracted
from fmsd.data.sources.extracted import PERSON
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.ownership import below
from fmsd.quoting import shell_override
from fmsd.runs.folder import locked, write
from fmsd.surroundings import machine_error, shared_memory_error
from fmsd.types import Problem

log = logging.getLogger(__name__)

SETTINGS = "extract.json"
"""How the crops of a folder were made; beside the manifest it marks the folder as one to train with."""

SHOWN = 10
"""So many failures are named on the terminal; all are in the file."""


def extract(
    data: DataModule,
    finder: Callable[[], Finder],
    recipe: Recipe,
    out: Path,
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
) -> int:
    """Makes crops of the videos that the data's root holds, and of them a manifest; returns the number of videos that could not be read.

    Videos that were done before are left as they are; crops whose video has another id by now are
    put aside, see `fmsd.data.extraction.outdated`. With several shards the manifest is left to
    `fmsd index`.

    Args:
        finder: makes the face detector, in every process.
        shard: (number, of how many) part of the videos, for several machines.
        workers: processes.

    Raises:
        InputError: there is nothing to extract, `out` holds crops that were made otherwise or
            something that would be replaced, it cannot be written, or another process works on it.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InputError(
            f"workers={workers} must be a whole number of at least 1", "null means one per core"
        )
    number, shards = shard
    if not 0 <= number < shards:
        raise InputError(
            f"shard={number}/{shards} does not exist", f"shards are counted from 0 to {shards - 1}"
        )
    about = finder().about  # what is wrong with it is said before anything is written
    listed, found = asked(data)
    if recipe.faces == "all":
        check_tracks(listed)
    settle(out, {"decoder": DECODER, "detector": about} | asdict(recipe))
    own, name = (
        found[number::shards],
        str(data.name) if shards == 1 else f"{data.name}-{number}-of-{shards}",
    )
    try:
        with working(out, name) as work:
            put_aside(listed, out)
            check_around(own, out)
            left = [source for source in own if not done(source, out)]
            if len(left) < len(own):
                log.info("%d of %d videos are done already.", len(own) - len(left), len(own))
            outcomes = list(worked(left, finder, recipe, out, work, workers))
            failures = tell(outcomes, recipe, out / f"failures-{name}.csv")
    except OSError as error:
        raise refused(out, error) from error
    if shards == 1:
        join(out)
    return failures


def asked(data: DataModule) -> tuple[list[Source], list[Source]]:
    """All videos that the source lists, and those to extract; what is wrong with the copy is logged.

    Raises:
        InputError: there is none.
    """
    problems: list[Problem] = []
    try:
        found = sources(data.source(data.place), problems)
    finally:
        manifests.log_problems(problems)
    kept = first(
        (
            source
            for source in found
            if not source.label or data.forgeries is None or source.domain in data.forgeries
        ),
        data.videos,
    )
    if not kept:
        raise InputError(
            f"No videos were found under {data.place}",
            "check the root and the layout that docs/data.md describes",
        )
    return found, kept


def check_tracks(found: Sequence[Source]) -> None:
    """Refuses ids that are written like those of the second and further persons of a video.

    Raises:
        InputError: there is one.
    """
    if odd := next((source.video for source in found if PERSON.search(source.video)), None):
        raise InputError(
            f"The id {odd} is written like that of a person's track (faces=all)",
            "rename that video",
        )


def settle(out: Path, settings: dict[str, Any]) -> None:
    """Writes how crops are made into a folder, or compares it with what stands there.

    Raises:
        InputError: the folder's crops were made otherwise, they are packed, or it cannot be
            written.
    """
    if (out / pack.MARK).is_file():
        raise InputError(
            f"{out} holds a pack, whose manifest would be lost", "choose another out=FOLDER"
        )
    before = manifests.made(out)
    if before is not None:
        before = asdict(Recipe()) | before  # made before a choice existed: by what is its default
        if differing := [name for name in settings if before.get(name) != settings[name]]:
            name = differing[0]
            raise InputError(
                f"The crops in {out} were made with {name}={before.get(name)}, not "
                f"{settings[name]}",
                "choose another out=FOLDER",
            )
        return
    try:
        held = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
        if held and not (out / SETTINGS).is_file():  # another shard may have begun meanwhile
            raise InputError(
                f"{out} holds something else", "choose an empty or new folder as out=FOLDER"
            )
        write(out / SETTINGS, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise refused(out, error) from error


@contextlib.contextmanager
def working(out: Path, name: str) -> Iterator[Path]:
    """A folder for what is being written, which belongs to this process alone; what a killed one left there is removed.

    Raises:
        InputError: another process is at work on the same videos, or a link leads out of `out`.
    """
    place = below(out, f".work/{name}")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a+", encoding="utf-8") as file:
        if not locked(file, patience=1):
            raise InputError(
                f"Another process is extracting {name} into {out}",
                "wait for it, or choose another out=FOLDER",
            )
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
    """A sentence for what keeps crops from being written; not all of it concerns their folder."""
    if shared := shared_memory_error(error):
        return shared
    if error.filename is None and error.errno not in (
        errno.ENOSPC,
        errno.EDQUOT,
    ):  # of starting the processes
        return machine_error(error) or InputError(
            f"The extraction into {out} broke off ({error.strerror or error})",
            "run the same command again",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"There is no space left in {out}",
            "make room and run the same command again: it goes on where it stopped",
        )
    return InputError(
        f"{error.filename or out} cannot be written ({error.strerror or error})",
        "choose another out=FOLDER",
    )


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


def worked(
    left: Sequence[Source],
    finder: Callable[[], Finder],
    recipe: Recipe,
    out: Path,
    work: Path,
    workers: int,
) -> Iterator[Outcome]:
    """Extracts videos in several processes, in any order; on Ctrl-C those at work are finished and the others left.

    Raises:
        InputError: a process died.
        OSError: crops cannot be written.
    """
    if not left:
        return
    workforce = pool(min(workers, len(left)), _begin, (finder,))
    waiting, running, began, frames = (
        iter(left),
        dict[Future[Outcome], Source](),
        time.monotonic(),
        0,
    )
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
            names = ", ".join(
                str(source.file or source.video) for source in list(running.values())[:workers]
            )
            raise InputError(
                "A process died, of too little memory or in the decoder, at work on one of "
                f"{names}",
                "run the same command again with fewer workers=, or move that video away",
            ) from error
        finally:
            workforce.shutdown(cancel_futures=True)


# ---- the end


def tell(outcomes: Sequence[Outcome], recipe: Recipe, path: Path) -> int:
    """Says what was made, keeps the list of what could not be read, and returns its length."""
    failures = sorted(
        (outcome for outcome in outcomes if outcome.failure), key=lambda outcome: outcome.video
    )
    read = sorted(
        (outcome for outcome in outcomes if not outcome.failure), key=lambda outcome: outcome.video
    )
    looked, crops = sum(outcome.frames for outcome in read), sum(outcome.crops for outcome in read)
    log.info(
        "%d videos, %d frames, %d crops; every frame's fate is in its video's %s.",
        len(read),
        looked,
        crops,
        RECORD,
    )
    for sentence in warnings(read, recipe):
        log.warning("%s", sentence)
    if failures:
        rows = [[outcome.video, outcome.failure] for outcome in failures]
        show(
            f"{len(failures)} videos could not be read",
            ["video", "why"],
            rows[:SHOWN],
            f"All are in {path}; the same command tries them again",
        )
        write(path, pl.DataFrame(rows, schema=["video", "why"], orient="row").write_csv())
    else:
        path.unlink(missing_ok=True)
    return len(failures)


def warnings(read: Sequence[Outcome], recipe: Recipe) -> Iterator[str]:
    """What a user should know of the videos that were read: a sentence for each kind, with numbers and an example."""

    def within(number: Callable[[Outcome], int]) -> tuple[int, str]:
        """The sum of a number, and in which videos it is above 0."""
        found = [outcome for outcome in read if number(outcome)]
        return sum(
            map(number, found)
        ), f"in {len(found)} of {len(read)} videos, {found[0].video} among them" if found else ""

    count, where = within(lambda outcome: outcome.statuses.get("damaged", 0))
    if count:
        yield f"Frames that cannot be decoded: {count}, {where}; they are left out."
    count, where = within(lambda outcome: outcome.corrupt)
    if count:
        fate = "kept" if recipe.keep_corrupt else "left out; keep_corrupt=true keeps them"
        yield (
            f"Frames that are damaged and patched by the decoder: {count}, {where}; they are "
            f"{fate}."
        )
    count, where = within(lambda outcome: outcome.small)
    if count:
        fate = "kept; keep_small=false leaves them out" if recipe.keep_small else "left out"
        yield (
            f"Faces smaller than min_face={recipe.min_face} pixels: {count}, {where}; they are "
            f"{fate}."
        )
    count, where = within(lambda outcome: outcome.faceless == outcome.frames)
    if count:
        yield f"No face at all: {where}; they are recorded, but are in no table of results."
    count, where = within(lambda outcome: outcome.faceless < outcome.frames < 2 * outcome.faceless)
    if count:
        yield f"A face in fewer than half of the frames: {where}."
    count, where = within(lambda outcome: 2 * outcome.several > outcome.frames)
    if count and recipe.faces != "all":
        yield (
            f"Several faces in most of the frames: {where}; one person is taken of each, "
            "faces=all takes all."
        )
    count, where = within(lambda outcome: outcome.picture.get("pixel_aspect", "1:1") != "1:1")
    if count:
        yield f"Pixels that are not square: {where}; they were squared."
    count, where = within(lambda outcome: outcome.picture.get("tone_mapped") is not None)
    if count:
        yield f"High dynamic range: {where}; they were mapped to the standard range."


def join(out: Path) -> Manifest:
    """Writes the manifest of all crops in a folder.

    Raises:
        InputError: there is not a single one.
    """
    if not any(
        frame["status"] == "face" for _, record in records(out) for frame in record["frames"]
    ):
        raise InputError(
            f"None of the videos in {out} shows a face that was found",
            "lower detector.score, or look at them",
        )
    manifest = manifests.collect(extracted.scan(out), out).validate()
    manifest.write(out / "manifest.parquet")
    print(
        f"{len(manifest)} crops of {manifest.videos} videos lie in {out}; train and test with "
        f"{shell_override('data.root', out)}"
    )
    return manifest
