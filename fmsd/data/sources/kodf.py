"""KoDF, the Korean deepfake detection dataset, by the names of its files.

Kwon et al., ICCV 2021, arXiv 2103.10094.

    ROOT/**/ACTOR_NNN.mp4                       a real video
    ROOT/**/TARGET_SOURCE_CODE_NNN.mp4          a fake; ACTOR, TARGET, SOURCE: 6 digits, or 20 hex

Names mean the same wherever the files lie, so the tree may be that of the authors, of AI-Hub or a
part of either. A folder whose name is that of a method, or of the real or the fake half, must agree
with the names in it. The domain of a fake is the method of its code.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Split
from fmsd.data.sources.listing import Described, by_last_parts, describe, find_videos, group_name
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError

METHODS = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}
"""The methods by the code in a name."""

FOLDERS = {method: {method} for method in METHODS.values()} | {
    "original_content": {REAL},
    "manipulated_content": set(METHODS.values()),
}
"""The domains that a folder of a name may hold."""

ACTOR = r"(?:[0-9a-f]{20}|[0-9]{6})"
NAME = re.compile(rf"({ACTOR})_(?:{ACTOR}_(\d)_)?\d+")


@refuse_unreadable
def scan(
    root: Path, dataset: str = "kodf", split: Split = "test", frames: str | None = None
) -> Iterator[Entry]:
    """Every video whose name is one of the dataset's.

    Args:
        split: the split of all videos, as there is no official one.
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: an unknown code, or a name that contradicts a folder above it.
    """
    found, problems = find_videos(root, frames)
    yield from problems
    listed: dict[str, Described | None] = {}
    for key in found:
        *folders, name = key.split("/")
        if (match := NAME.fullmatch(name)) is None:
            continue
        actor, code = match.groups()
        if code is not None and code not in METHODS:
            raise InputError(
                f"{root / key} has the code {code}, none of {', '.join(METHODS)}",
                "correct its name, or move it away",
            )
        domain = REAL if code is None else METHODS[code]
        for folder in folders:
            if domain not in FOLDERS.get(folder, {domain}):
                raise InputError(
                    f"{root / key} is {domain} by its name, but lies in {folder}",
                    "move it, or correct its name",
                )
        listed[name] = Described(domain, f"{group_name(actor)}_{name}", split)
    yield from describe(by_last_parts(found, 1, listed), listed, dataset, root, root)
