"""Crops whose video is no longer listed under its id, as after a corrected label.

A video that was moved from `fake/` to `real/` has another id and is extracted again; its older
crops, with the wrong label, must leave the manifest.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.data.extraction.records import StoredRecord, check_crop_folder
from fmsd.data.extraction.source_videos import RECORD_FILE, SourceVideo, file_state
from fmsd.data.sources.tree import raise_unreadable
from fmsd.errors import InputError
from fmsd.json_records import read_record
from fmsd.ownership import path_below

log = logging.getLogger(__name__)

STALE_FOLDER = ".stale"
"""The folder of crops whose video has another id by now; hidden, so that no manifest lists them."""


def put_aside(listed: Sequence[SourceVideo], out: Path) -> None:
    """Moves crops aside whose video has another id by now; warns of crops without a listed video.

    Two videos are the same if dataset and compression, and name, size and time of the file are
    equal; for folders of images, the folder's name, the names of all images, and size and time of
    the first and the last. Only crops of the listed datasets are checked; those whose source is
    gone are left in place.

    Args:
        listed: all videos of the source, also those that are not to be extracted.

    Raises:
        InputError: a folder to be moved holds other files than crops, or `out` cannot be read.
    """
    known = {source.video for source in listed}
    datasets = {source.dataset for source in listed}
    alike: dict[tuple[str, str, str], list[SourceVideo]] = {}
    for source in listed:
        key = (source.dataset, source.compression, _name(source.video, source.file))
        alike.setdefault(key, []).append(source)
    moved: list[tuple[str, str]] = []
    gone: list[str] = []
    for folder, record in _unlisted_records(known, out):
        file = record["source"].get("file")
        name = _name(record["video"], file and Path(file))
        same = alike.get((record["dataset"], record["compression"], name), ())
        if new := next((source for source in same if file_state(source) == record["source"]), None):
            _move(folder, path_below(out, f"{STALE_FOLDER}/{record['video']}"))
            moved.append((record["video"], new.video))
        elif record["dataset"] in datasets:
            gone.append(record["video"])
    if moved:
        old, new_id = moved[0]
        log.warning(
            "%d videos have another id than before, as after a corrected label: %s was %s. Their "
            "older crops now lie in %s and are in no manifest.",
            len(moved),
            new_id,
            old,
            out / STALE_FOLDER,
        )
    if gone:
        log.warning(
            "%d videos with crops in %s are no longer in the source, %s among them; they stay in "
            "the manifest until their folders are deleted.",
            len(gone),
            out,
            gone[0],
        )


def _name(video: str, file: Path | None) -> str:
    """The part of a video's name that is unchanged when its folder is moved."""
    return video.rpartition("/")[2] if file is None else file.name


def _unlisted_records(known: set[str], out: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """(folder, record) of the crops whose id is unknown; damaged and misplaced ones are skipped."""

    def raise_unless_moved(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # another shard has just moved it
            raise_unreadable(error)

    for folder, subfolders, files in os.walk(out, onerror=raise_unless_moved):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        path = Path(folder)
        place = path.relative_to(out).as_posix()
        if RECORD_FILE not in files or place in known:
            continue
        with contextlib.suppress(InputError):
            record = read_record(path / RECORD_FILE, StoredRecord, "")
            if record["video"] == place and isinstance(record["source"].get("file", ""), str):
                yield path, record


def _move(folder: Path, place: Path) -> None:
    check_crop_folder(folder)
    with contextlib.suppress(FileNotFoundError):  # another shard was faster
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # it was put aside before
            check_crop_folder(place)
            shutil.rmtree(place)
        folder.replace(place)
