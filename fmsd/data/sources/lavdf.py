"""LAV-DF in its official tree.

Cai et al., DICTA 2022, arXiv 2204.06228.

    ROOT/metadata.json or metadata.min.json     file, split, modify_video, modify_audio, original
    ROOT/{train,dev,test}/000001.mp4

The label is that of the images: with modified speech alone they are real. All modified images have
the lips of Wav2Lip. A fake is made from its original.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data.frame import REAL, Entry, Split, pair_id
from fmsd.data.sources.listing import Described, describe, find_videos, read_entries
from fmsd.data.sources.text import CORRECT_ENTRY, require_choice, require_member
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError

LISTS = ("metadata.json", "metadata.min.json")

SPLITS: dict[str, Split] = {"train": "train", "dev": "val", "test": "test"}

METHOD = "Wav2Lip"


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "lavdf",
    real_with_fake_audio: bool = False,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The videos that the metadata lists.

    Args:
        real_with_fake_audio: take real images under fake speech, as real; they repeat images.
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: missing or damaged metadata, or a video that it contradicts itself about.
    """
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise InputError(
            f"There is neither {LISTS[0]} nor {LISTS[1]} in {root}",
            "give the folder that holds it as data.root=PATH",
        )
    listed = read_entries(
        path, lambda row, file: _described(row, file, path, dataset, real_with_fake_audio)
    )
    found, problems = find_videos(root, frames)
    yield from problems
    yield from describe(found, listed, dataset, path, root)


def _described(
    row: dict[str, Any], file: str, path: Path, dataset: str, real_with_fake_audio: bool
) -> Described | None:
    """What an entry of the metadata says; None for what is left out."""
    images = require_member(row, "modify_video", bool, path, file)
    speech = require_member(row, "modify_audio", bool, path, file)
    split = require_choice(row.get("split"), SPLITS, path, file, "split")
    if row.get("n_fakes") and not (images or speech):
        raise InputError(
            f"{file} in {path} has {row['n_fakes']} fake periods, but neither its images nor its "
            "speech are modified",
            CORRECT_ENTRY,
        )
    if speech and not images and not real_with_fake_audio:
        return None
    original = row.get("original") if images else None
    pair = pair_id(dataset, "", PurePosixPath(original).stem) if isinstance(original, str) else ""
    domain = METHOD if images else REAL
    return Described(domain, PurePosixPath(file).stem, split, pair, "fake" if speech else "real")
