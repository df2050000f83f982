"""The JSON format of DeepfakeBench: where its files lie, and the videos that they list.

    {DATASET: {LABEL: {SPLIT: {VIDEO: {"label": LABEL, "frames": [PATH, ...]}}}}}
    {DATASET: {LABEL: {SPLIT: {COMPRESSION: {VIDEO: {...}}}}}}

FaceForensics++ and its relatives have the level of compressions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmsd.data.sources.text import read_json, require_kind, require_member
from fmsd.errors import InputError

JSON_FOLDERS = (".", "dataset_json", "preprocessing/dataset_json")
"""Folders below the root in which a JSON file may lie."""

NO_LABEL = object()
"""Stands for the label of a video that has none of its own."""

VideoEntries = dict[str, Any]
"""The videos of a split by name, or by compression and name."""


def json_candidates(root: Path, file: str) -> list[Path]:
    """The paths at which a JSON file may lie."""
    return [root / folder / file for folder in JSON_FOLDERS]


def has_json(root: Path, file: str) -> bool:
    """Whether a JSON file lies below the root."""
    return any(path.is_file() for path in json_candidates(root, file))


def find_json(root: Path, file: str) -> Path:
    """The path of a JSON file.

    Raises:
        InputError: no candidate of `json_candidates` is a file.
    """
    candidates = json_candidates(root, file)
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(
        f"There is no {file} in {', '.join(str(path.parent) for path in candidates)}",
        "set data.root=PATH or data.source.file=PATH",
    )


def read_groups(path: Path) -> dict[str, dict[str, dict[str, VideoEntries]]]:
    """The videos of a JSON file by dataset, label and split.

    Raises:
        InputError: it is not JSON, or has another structure.
    """
    return {
        dataset: {
            label: {
                split: require_kind(
                    {} if videos is None else videos, dict, path, dataset, label, split
                )
                for split, videos in require_kind(splits, dict, path, dataset, label).items()
            }
            for label, splits in require_kind(groups, dict, path, dataset).items()
        }
        for dataset, groups in read_json(path).items()
    }


def by_compression(
    entries: VideoEntries, path: Path, *entry: str
) -> dict[str, dict[str, tuple[object, list[str]]]]:
    """(own label, frames) of the videos of a split, by compression and name.

    The compression is empty where the file has no such level.

    Args:
        entry: the label and the split, for messages.

    Raises:
        InputError: a video without frames, or a value of another type.
    """
    for name, about in entries.items():
        require_kind(about, dict, path, *entry, name)
    has_level = not any("frames" in about for about in entries.values()) and all(
        isinstance(video, dict) for about in entries.values() for video in about.values()
    )
    levels: dict[str, dict[str, tuple[object, list[str]]]] = {}
    for level, videos in (entries if has_level else {"": entries}).items():
        place = (*entry, level) if has_level else entry
        levels[level] = {
            name: (
                about.get("label", NO_LABEL),
                require_member(about, "frames", list, path, *place, name),
            )
            for name, about in require_kind(videos, dict, path, *place).items()
        }
        for name, (_, frames) in levels[level].items():
            for frame in frames:
                require_kind(frame, str, path, *place, name, "frames")
    return levels


def select_videos(
    entries: VideoEntries, compression: str | None, path: Path, *entry: str
) -> Iterator[tuple[str, str, object, list[str]]]:
    """(compression, video, own label, frames) of the videos of a split in one compression.

    Args:
        compression: the compression to select; None selects the only one.

    Raises:
        InputError: the file has several compressions, or not the selected one.
    """
    levels = by_compression(entries, path, *entry)
    if not levels:
        return
    only = next(iter(levels)) if len(levels) == 1 else None
    level = "" if "" in levels else compression or only
    if level is None or level not in levels:
        raise InputError(
            f"{path} holds the compressions {', '.join(levels)}, not {level}",
            "choose one with data.source.compression=NAME",
        )
    for name, (label, frames) in levels[level].items():
        yield level, name, label, frames
