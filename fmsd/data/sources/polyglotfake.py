"""PolyGlotFake, as the JSON files of its repository describe it.

Hou et al., ICPR 2024, arXiv 2405.08838.

    ROOT/json_file/real_json_file/en.json           videos: filename, source, characters
    ROOT/json_file/fake_Json_file/to_en.json        video: name, raw_video_name, sync_tech
    ROOT/**/es_1.mp4
    ROOT/**/es_1_to_en_Xtts.mp4                     a fake of es_1 in English, spoken by XTTS

The videos are found by their names, wherever they lie below the root. All fakes have lips made for
synthesised speech; the domain is the technique of the lips. A fake is made from its raw video.
Videos of one source and one description of the speaker show one speaker.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data.frame import REAL, Entry, Split, pair_id
from fmsd.data.sources.listing import Described, by_last_parts, describe, find_videos, group_name
from fmsd.data.sources.text import (
    CORRECT_ENTRY,
    read_json,
    require_choice,
    require_member,
)
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError

LANGUAGES = ("ar", "en", "es", "fr", "ja", "ru", "zh")

LIP_SYNC = {"Wav2Lip": "Wav2Lip", "video_retalking": "video_retalking"}
"""The domains by `sync_tech`."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "polyglotfake",
    lists: str = "json_file",
    split: Split = "test",
    frames: str | None = None,
) -> Iterator[Entry]:
    """The videos that the JSON files list.

    Args:
        lists: the folder of the JSON files, relative to the root or absolute.
        split: the split of all videos, as there is no official one.
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: a missing or damaged file, an unknown technique, or a fake whose name is not
            that of its raw video.
    """
    listed: dict[str, Described | None] = {}
    names: dict[str, str] = {}
    speakers: dict[str, str] = {}  # the first video of each, which names them
    for _, row in _rows(root / lists, "real_json_file/{}.json", "videos", "filename"):
        name = PurePosixPath(row["filename"]).stem
        speaker = json.dumps([row.get("source") or name, row.get("characters")], sort_keys=True)
        names[name] = f"{speakers.setdefault(speaker, group_name(name.replace('_', '')))}_{name}"
        listed[name] = Described(REAL, names[name], split, audio="real")
    for path, row in _rows(root / lists, "fake_Json_file/to_{}.json", "video", "name"):
        name = PurePosixPath(row["name"]).stem
        raw = PurePosixPath(require_member(row, "raw_video_name", str, path, row["name"])).stem
        if not name.startswith(f"{raw}_to_"):
            raise InputError(
                f"{path} says that {row['name']} is made from {row['raw_video_name']}",
                CORRECT_ENTRY,
            )
        sync = require_member(row, "sync_tech", str, path, row["name"])
        domain = require_choice(sync, LIP_SYNC, path, row["name"], "sync_tech")
        if raw not in names:
            raise InputError(
                f"{path} says that {row['name']} is made from {row['raw_video_name']}, which no "
                "file of real videos lists",
                CORRECT_ENTRY,
            )
        identity = names[raw].removesuffix(raw) + name
        pair = pair_id(dataset, "", names[raw])
        listed[name] = Described(domain, identity, split, pair, "fake")
    found, problems = find_videos(root, frames)
    yield from problems
    yield from describe(by_last_parts(found, 1, listed), listed, dataset, root / lists, root)


def _rows(folder: Path, pattern: str, key: str, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, entry) of each video in the files of all languages."""
    for language in LANGUAGES:
        path = folder / pattern.format(language)
        if not path.is_file():
            raise InputError(
                f"There is no {path}",
                "put the folder json_file of the dataset's repository there, or name its place by "
                "data.source.lists=FOLDER",
            )
        for row in require_member(read_json(path), key, list, path, path.name):
            require_member(row, name, str, path, key)
            yield path, row
