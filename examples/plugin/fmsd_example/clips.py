"""Folders of frames that a JSON file labels.

ROOT/clips.json            [{"clip": "a7", "label": "real"},
                            {"clip": "b2", "label": "fake", "generator": "veo"}]
ROOT/frames/a7/0000.png
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.text import read_json, require_choice, require_member
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError
from fmsd.names import check_name

LABELS: dict[str, Literal[0, 1]] = {"real": 0, "fake": 1}


@refuse_unreadable
def scan(root: Path, dataset: str, split: Split = "test") -> Iterator[Entry]:
    """The clips that the JSON file lists; a listed clip without a folder is a problem of the copy.

    Args:
        split: the split of all clips.

    Raises:
        InputError: no or a damaged JSON file, or a clip listed twice.
    """
    file = root / "clips.json"
    if not file.is_file():
        raise InputError(f"There is no {file}", "give the folder that holds it as data.root=PATH")
    seen: set[str] = set()
    for number, row in enumerate(read_json(file, list)):
        entry = f"entry {number}"
        clip = require_member(row, "clip", str, file, entry)
        check_name(clip, "clip")  # before it becomes part of a path
        if clip in seen:
            raise InputError(f"{file} lists the clip {clip} twice", "remove one of the entries")
        seen.add(clip)
        label = require_choice(
            require_member(row, "label", str, file, entry), LABELS, file, entry, "label"
        )
        domain = require_member(row, "generator", str, file, entry) if label else REAL
        folder = root / "frames" / clip
        if folder.is_dir():
            identity = video_id(dataset, domain, "", clip)
            yield Video(None, folder, label, dataset, domain, identity, split)
        else:
            yield Problem("missing", f"There is no folder {folder}", "complete the copy", 0, domain)
