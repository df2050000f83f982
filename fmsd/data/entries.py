"""Building a manifest from the entries of a source."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.frame import SCHEMA, Entry, Frame, Problem, Video
from fmsd.data.manifest import Manifest
from fmsd.data.sources import tree
from fmsd.data.spelling import escape_non_utf8, is_utf8
from fmsd.errors import InputError, reason

log = logging.getLogger(__name__)

CHUNK = 50_000
"""Number of frames that exist as Python objects at a time."""


def from_entries(entries: Iterable[Entry], root: Path) -> Manifest:
    """The manifest of the frames that a source yields, ordered by path.

    Paths below `root` become relative to it. Problems of the copy are logged, the first of each
    kind.

    Raises:
        InputError: there is no frame, all folders of the real or of the fake videos are empty, a
            video has no extracted frames, a frame has a value of the wrong type, or a dataset's
            frames lie in folders of several kinds.
    """
    problems: list[Problem] = []
    parts: list[pl.DataFrame] = []
    frames = _frames(entries, problems)
    try:
        while rows := [_row(frame) for frame in itertools.islice(frames, CHUNK)]:
            parts.append(_table(rows, root))
    finally:
        log_problems(problems)  # they may be why the copy is refused
    if not parts:
        raise InputError(
            f"No frames were found under {root}",
            "check the root and the layout on the page of the dataset in docs/datasets",
        )
    prefix = f"{root.as_posix().rstrip('/')}/"
    table = pl.concat(parts).with_columns(pl.col("path").str.strip_prefix(prefix)).sort("path")
    return Manifest(table, root)


def log_problems(problems: Iterable[Problem]) -> None:
    """Logs the first problem of each kind, and how many more of it there are."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    for kind, (first, *others) in kinds.items():
        files = sum(problem.files for problem in (first, *others))
        counted = (
            f"{files:,} files in {1 + len(others):,} places"
            if files
            else f"{len(others):,} more like this"
        )
        log.warning(
            "%s%s", first, f" ({counted}: {kind}; fmsd doctor lists them)" if others else ""
        )


def _frames(entries: Iterable[Entry], problems: list[Problem]) -> Iterator[Frame]:
    """The frames of all entries; problems are appended to `problems`."""
    folders: dict[str, Path] = {}  # a dataset's first folder of frames
    filled: dict[tuple[str, int], bool] = {}
    for entry in entries:
        if (
            isinstance(entry, Video)
            and entry.images is not None
            and entry.images.parent.name in tree.FRAME_FOLDERS
        ):
            first = folders.setdefault(entry.dataset, entry.images.parent)
            if first.name != entry.images.parent.name:
                raise InputError(
                    f"{first} and {entry.images.parent} hold frames of {entry.dataset} that were "
                    "made in two ways, which would tell real from fake",
                    "choose one kind by data.source.frames=NAME (data.source.tree.frames where "
                    "the source has a tree)",
                )
        count = 0
        for frame in tree.entry_frames(entry):
            if isinstance(frame, Problem):
                problems.append(frame)
            else:
                count += 1
                yield frame
        if isinstance(entry, Video):
            note_filled(filled, entry, count)
    check_filled(filled)


def note_filled(filled: dict[tuple[str, int], bool], video: Video, frames: int) -> None:
    """Notes whether a video of a dataset and label has frames."""
    key = video.dataset, video.label
    filled[key] = filled.get(key, False) or frames > 0


def check_filled(filled: Mapping[tuple[str, int], bool]) -> None:
    """Refuses a copy in which all videos of one label lack frames, while others have some."""
    if not any(filled.values()):
        return
    for (dataset, label), has_frames in filled.items():
        if not has_frames:
            raise InputError(
                f"All {'fake' if label else 'real'} videos of {dataset} lack frames: their folders "
                "are empty",
                "extract them again, or give the folder that holds them",
            )


_fields = attrgetter(*SCHEMA.names())


def _row(frame: Frame) -> tuple[Any, ...]:
    """A frame as a row of `SCHEMA`."""
    return (str(frame.path), *_fields(frame)[1:])


def _table(rows: list[tuple[Any, ...]], root: Path) -> pl.DataFrame:
    """Rows as a table, after checks of their text and labels."""
    for row in rows:
        if not all(is_utf8(cell) for cell in row if isinstance(cell, str)):
            raise InputError(
                f"{escape_non_utf8(row[0])} has a name or description that is not UTF-8",
                "rename it, or correct what lists it",
            )
    for row in rows:
        if type(row[1]) is not int:  # a cast would make 0.7 real, true and "1" fake
            raise InputError(
                f"The frames of {root} have values of the wrong kind (the label of {row[0]} is "
                f"{row[1]!r})",
                "labels are 0 or 1",
            )
    try:
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"The frames of {root} have values of the wrong kind ({reason(error)})",
            "labels are 0 or 1, indices whole numbers",
        ) from error
