"""Crops whose video a source no longer lists: the same file may stand there under another id since, after its label was corrected.

A clip that was moved from `fake/` to `real/` has another id, so it is extracted anew; its older
crops, with the wrong label, must leave the manifest.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.data.extraction.crops import RECORD, Source, check_own, origin
from fmsd.data.sources.tree import unreadable
from fmsd.ownership import path_below

log = logging.getLogger(__name__)

STALE = ".stale"
"""Where crops are put aside whose source has another id by now; hidden, so that no manifest takes them up."""


def put_aside(listed: Sequence[Source], out: Path) -> None:
    """Moves crops out of the way whose source file is listed under another id by now, and names those whose source is not listed at all.

    A file is the same if its name, size and time are, within one dataset and compression; so is a
    folder of images with those of its names, its first and its last image, and its own name. Only
    crops of the listed datasets are looked at; those whose source is gone stay as they are.

    Args:
        listed: everything that the source yields, whatever part of it is asked for.

    Raises:
        InputError: the crops to be moved are not ours alone, or `out` cannot be read.
    """
    known = {source.video for source in listed}
    alike: dict[tuple[str, str, str], list[Source]] = {}
    for source in listed:
        alike.setdefault(
            (source.dataset, source.compression, _name(source.video, source.file)), []
        ).append(source)
    datasets, moved, gone = {source.dataset for source in listed}, [], []
    for folder, record in _unlisted(known, out):
        made_of = record["source"].get("file")
        same = alike.get(
            (
                record["dataset"],
                record["compression"],
                _name(record["video"], made_of and Path(made_of)),
            ),
            (),
        )
        if new := next((source for source in same if origin(source) == record["source"]), None):
            _move(folder, path_below(out, f"{STALE}/{record['video']}"))
            moved.append((record["video"], new.video))
        elif record["dataset"] in datasets:
            gone.append(record["video"])
    if moved:
        log.warning(
            "%d videos have another id than before, as after a corrected label: %s was %s. Their "
            "older crops now lie in %s and are in no manifest.",
            *(len(moved), moved[0][1], moved[0][0], out / STALE),
        )
    if gone:
        log.warning(
            "%d videos with crops in %s are no longer in the source, %s among them; they stay in "
            "the manifest until their folders are deleted.",
            *(len(gone), out, gone[0]),
        )


def _name(video: str, file: Path | None) -> str:
    """What stays of a video's name when its folder is moved."""
    return video.rpartition("/")[2] if file is None else file.name


def _unlisted(known: set[str], out: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """(folder, record) of the crops in their place whose id is not known; damaged records are left to who reads them all."""

    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # another shard has just moved it
            unreadable(error)

    for folder, subfolders, files in os.walk(out, onerror=unread):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        path = Path(folder)
        if RECORD not in files or path.relative_to(out).as_posix() in known:
            continue
        with contextlib.suppress(
            ValueError, KeyError, TypeError, AttributeError, FileNotFoundError
        ):
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            about = {name: record[name] for name in ("video", "dataset", "compression", "source")}
            texts = (
                about["video"],
                about["dataset"],
                about["compression"],
                about["source"].get("file") or "",
            )
            if about["video"] != path.relative_to(out).as_posix() or not all(
                isinstance(text, str) for text in texts
            ):
                continue
            yield path, about


def _move(folder: Path, place: Path) -> None:
    check_own(folder)
    with contextlib.suppress(FileNotFoundError):  # another shard was faster
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # it was put aside before
            check_own(place)
            shutil.rmtree(place)
        folder.replace(place)
