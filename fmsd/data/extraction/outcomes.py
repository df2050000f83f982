"""The outcome of an extraction: counts of each video, warnings, and the list of failures."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import atomic
from fmsd.console import print_table
from fmsd.data.absent_videos import ABSENT_SCHEMA
from fmsd.data.extraction.masks import MASKED
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import RECORD_FILE, SourceVideo

log = logging.getLogger(__name__)

MAX_SHOWN = 10
"""Failures that are printed at most; the file lists all."""


@dataclass(frozen=True)
class VideoOutcome:
    """The outcome of one video.

    Args:
        video: its id.
        frames: number of processed frames.
        statuses: number of lines of the record by status, see `fmsd.data.extraction.frames`.
        small: number of faces below `min_face`, kept or not.
        corrupt: number of frames that are decoded with damage, kept or not.
        faceless: number of frames without a face.
        several: number of frames with several faces.
        picture: how its frames are shown, as in its record.
        mask: how its mask was used, as in its record; empty without a mask.
        failure: why the video could not be read; empty where it could.
    """

    video: str
    frames: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    small: int = 0
    corrupt: int = 0
    faceless: int = 0
    several: int = 0
    picture: Mapping[str, Any] = field(default_factory=dict)
    mask: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def crops(self) -> int:
        """Number of crops."""
        return self.statuses.get("face", 0)


def summarize_record(record: Mapping[str, Any], recipe: Recipe) -> VideoOutcome:
    """The outcome of a video by its record."""
    lines = record["frames"]

    def count_frames(holds: Callable[[dict[str, Any]], bool]) -> int:
        # a frame has a line for each person
        return len({line["index"] for line in lines if holds(line)})

    return VideoOutcome(
        record["video"],
        frames=count_frames(lambda line: True),
        statuses=Counter(line["status"] for line in lines),
        small=sum(line.get("side", recipe.min_face) < recipe.min_face for line in lines),
        corrupt=count_frames(
            lambda line: line["status"] == "corrupt" or line.get("corrupt", False)
        ),
        faceless=count_frames(lambda line: line["status"] == "none"),
        several=count_frames(lambda line: line["faces"] > 1),
        picture=record["picture"],
        mask=record.get("mask", {}),
    )


FAILURE_COLUMNS = ("video", "why", *ABSENT_SCHEMA.names()[1:-1])
"""The columns of the list of failures: the video, why it could not be read, and what it is."""


def report_outcomes(
    outcomes: Sequence[VideoOutcome], sources: Sequence[SourceVideo], recipe: Recipe, path: Path
) -> int:
    """Logs the counts and warnings of an extraction, and prints its failures.

    Args:
        sources: the videos, in any order.
        path: the CSV file of the failures; removed where there is none.

    Returns:
        The number of failures.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.video)
    failures = [outcome for outcome in outcomes if outcome.failure]
    read = [outcome for outcome in outcomes if not outcome.failure]
    log.info(
        "%d videos, %d frames, %d crops; the outcome of every frame is in its video's %s.",
        len(read),
        sum(outcome.frames for outcome in read),
        sum(outcome.crops for outcome in read),
        RECORD_FILE,
    )
    for sentence in outcome_warnings(read, recipe):
        log.warning("%s", sentence)
    rows = [[outcome.video, outcome.failure] for outcome in failures]
    print_table(
        f"{len(failures)} videos could not be read",
        ["video", "why"],
        rows[:MAX_SHOWN],
        f"All are in {path}; the same command tries them again",
        name="failures",
        records=[{"video": video, "why": why} for video, why in rows],
    )
    if failures:
        with atomic(path) as partial:
            known = {source.video: source for source in sources}
            lines = [
                [*row, *(getattr(known[row[0]], name) for name in FAILURE_COLUMNS[2:])]
                for row in rows
            ]
            table = pl.DataFrame(lines, schema=FAILURE_COLUMNS, orient="row")
            partial.write_text(table.write_csv(), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
    return len(failures)


def outcome_warnings(read: Sequence[VideoOutcome], recipe: Recipe) -> Iterator[str]:
    """Sentences about the videos that a user should check: a count and an example of each kind.

    Args:
        read: the outcomes of the videos that could be read.
    """
    count = functools.partial(count_affected, read)
    total, where = count(lambda outcome: outcome.statuses.get("damaged", 0))
    if total:
        yield f"Frames that cannot be decoded: {total}, {where}; they are left out."
    total, where = count(lambda outcome: outcome.corrupt)
    if total:
        fate = "kept" if recipe.keep_corrupt else "left out; keep_corrupt=true keeps them"
        yield (
            f"Frames that are damaged and patched by the decoder: {total}, {where}; they are "
            f"{fate}."
        )
    total, where = count(lambda outcome: outcome.small)
    if total:
        fate = "kept; keep_small=false leaves them out" if recipe.keep_small else "left out"
        yield (
            f"Faces smaller than min_face={recipe.min_face} pixels: {total}, {where}; they are "
            f"{fate}."
        )
    total, where = count(lambda outcome: outcome.faceless == outcome.frames)
    if total:
        yield f"No face at all: {where}; a test counts them as videos without a score (coverage=)."
    total, where = count(lambda outcome: outcome.faceless < outcome.frames < 2 * outcome.faceless)
    if total:
        yield f"A face in fewer than half of the frames: {where}."
    total, where = count(lambda outcome: 2 * outcome.several > outcome.frames)
    if total and recipe.faces != "all":
        yield (
            f"Several faces in most of the frames: {where}; one person is taken of each, "
            "faces=all takes all."
        )
    yield from picture_warnings(read)


def count_affected(
    read: Sequence[VideoOutcome], number: Callable[[VideoOutcome], int]
) -> tuple[int, str]:
    """The sum of a number over the videos, and in which of them it is above 0."""
    affected = [outcome for outcome in read if number(outcome)]
    if not affected:
        return 0, ""
    where = f"in {len(affected)} of {len(read)} videos, {affected[0].video} among them"
    return sum(map(number, affected)), where


def picture_warnings(read: Sequence[VideoOutcome]) -> Iterator[str]:
    """Sentences about how the frames of videos are shown, and about their masks."""
    count = functools.partial(count_affected, read)
    total, where = count(lambda outcome: outcome.picture.get("pixel_aspect", "1:1") != "1:1")
    if total:
        yield f"Pixels that are not square: {where}; they were squared."
    total, where = count(lambda outcome: outcome.picture.get("tone_mapped") is not None)
    if total:
        yield f"High dynamic range: {where}; they were mapped to the standard range."
    total, where = count(lambda outcome: bool(outcome.picture.get("interlaced")))
    if total:
        yield (
            f"Interlaced: {where}; both fields of a frame are kept in it, so that what moves has "
            "combs; deinterlace the videos first if only some of them are."
        )
    total, where = count(lambda outcome: outcome.mask.get("used") is False)
    if total:
        why = next(outcome.mask["why"] for outcome in read if outcome.mask.get("used") is False)
        yield (
            f"Masks that cannot be used: {where} ({why}); the person with the largest face was "
            "taken, of a fake alone."
        )
    total, where = count(lambda outcome: outcome.mask.get("share", 1) < MASKED)
    if total:
        yield (
            f"No detected face lies under the mask: {where}; fakes among them have no crop, as "
            "their other faces are real; mask=null chooses by track."
        )
