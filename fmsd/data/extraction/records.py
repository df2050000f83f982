"""The crops of a video on disk: a folder of images with a record of every processed frame.

OUT/DATASET/DOMAIN/COMPRESSION/NAME/000017.png
OUT/DATASET/DOMAIN/COMPRESSION/NAME/video.json
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from fmsd.atomic import atomic
from fmsd.data.extraction.source_videos import RECORD_FILE, SOURCE_KEYS, SourceVideo, file_state
from fmsd.data.frame import LATER_COLUMNS, Audio, Split
from fmsd.data.loading.blending import LANDMARKS_SUFFIX
from fmsd.data.sources.tree import raise_unreadable
from fmsd.errors import InputError
from fmsd.json_records import Count, read_record
from fmsd.names import check_name, check_names
from fmsd.ownership import path_below

CROP_NAME = re.compile(rf"\d{{6,}}(_\d+)?(\.(png|jpg)|{re.escape(LANDMARKS_SUFFIX)})")
"""The file name of a crop, or of its landmarks."""


class FrameRecord(TypedDict):
    """A line of a record: a person in a frame, or a frame without any."""

    index: Count
    status: str
    person: NotRequired[Count]
    file: NotRequired[str]


class VideoRecord(TypedDict):
    """The record of a video, see `SourceVideo`."""

    video: str
    label: Literal[0, 1]
    dataset: str
    domain: str
    split: Split
    compression: str
    pair: NotRequired[str]  # records of earlier versions lack these two
    audio: NotRequired[Audio]
    frames: list[FrameRecord]


class StoredRecord(VideoRecord):
    """The same with the state of the source, see `file_state`."""

    source: dict[str, Any]


def is_extracted(source: SourceVideo, out: Path) -> bool:
    """Whether the crops of a video lie in `out`, made from its present file.

    A record with an outdated label, split or the like is corrected. A damaged record counts as
    none.

    Raises:
        InputError: something that must not be replaced lies in the place of its crops.
    """
    folder = path_below(out, source.video)
    try:
        record = read_record(folder / RECORD_FILE, StoredRecord, "")
    except InputError:
        record = None
    if record is not None:
        if record["video"] != source.video:
            raise InputError(
                f"{folder} holds the crops of {record['video']}",
                f"move it away, or give its video back as it was: {source.video}",
            )
        about = {name: getattr(source, name) for name in SOURCE_KEYS}
        if record["source"] == file_state(source):
            if any(record.get(name, "") != value for name, value in about.items()):
                with atomic(folder / RECORD_FILE) as partial:
                    partial.write_text(json.dumps(record | about), encoding="utf-8")
            return True
    check_crop_folder(folder)
    return False


def check_crop_folder(folder: Path) -> None:
    """Refuses to replace a folder that holds other files than crops; it may be missing or empty."""
    if not os.path.lexists(folder):
        return
    remedy = "move it away, or choose another out=FOLDER"
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is no folder of crops that fmsd extract wrote", remedy)
    paths = sorted(folder.iterdir())
    if paths and not (folder / RECORD_FILE).is_file():
        raise InputError(
            f"{folder} is no folder of crops that fmsd extract wrote (it has no {RECORD_FILE})",
            remedy,
        )
    for path in paths:
        if path.is_dir() or not (path.name == RECORD_FILE or CROP_NAME.fullmatch(path.name)):
            raise InputError(f"{path} was not written by fmsd extract and would be lost", remedy)


def check_nesting(sources: Iterable[SourceVideo], out: Path) -> None:
    """Refuses videos whose folder of crops would lie inside that of another video."""
    checked: set[str] = set()
    for source in sources:
        parts = source.video.split("/")
        for folder in {"/".join(parts[:end]) for end in range(1, len(parts))} - checked:
            checked.add(folder)
            if (out / folder / RECORD_FILE).is_file():
                raise InputError(
                    f"The crops of {source.video} would lie in those of {folder}",
                    "rename one of them, or choose another out=FOLDER",
                )


def read_records(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, record) of every video whose crops lie in `out`.

    Raises:
        InputError: a folder or a record cannot be read, or a record has names that no extraction
            writes.
    """
    for folder, subfolders, files in os.walk(out, onerror=raise_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if RECORD_FILE in files:
            yield Path(folder), _read_record(Path(folder) / RECORD_FILE)


def _read_record(path: Path) -> dict[str, Any]:
    """The keys of a record that a manifest is made of.

    Raises:
        InputError: the record is damaged.
    """
    remedy = "delete its folder and run fmsd extract again"
    record = dict.fromkeys(LATER_COLUMNS, "") | read_record(path, VideoRecord, remedy)
    names = ("dataset", "domain", "compression", "video", "pair")
    try:
        check_names(*(record[name] for name in names))
        for frame in record["frames"]:
            if frame["status"] == "face":
                check_name(frame.get("file"), "file name")
    except InputError as error:
        raise InputError(f"{path} is damaged: {error.message}", remedy) from error
    return {name: record[name] for name in (*SOURCE_KEYS, "frames")}
