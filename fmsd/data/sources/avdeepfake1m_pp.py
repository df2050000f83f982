"""AV-Deepfake1M++, its labelled part, as its metadata describes it.

Cai et al., ACM Multimedia 2025, arXiv 2507.20579.

    ROOT/val_metadata.json                  file, modify_type, video_model, original, fake_segments
    ROOT/val/vox_celeb_2/id01358/1nATum8x78/00030/real.mp4
    ROOT/val/lrs3/CLIP/00001/NAME.mp4
    ROOT/val/silent_videos/subject_1_HASH_vid_1_1/NAME.mp4

The folders of the three corpora may also lie in the root itself. The label is that of the images:
with modified speech alone they are real. The domain of a fake is its `video_model`. A fake is made
from its original, where that is a video of the dataset.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data.frame import REAL, Audio, Entry, Split, pair_id
from fmsd.data.sources.listing import Described, describe, find_videos, group_name, read_entries
from fmsd.data.sources.text import CORRECT_ENTRY, require_choice
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError

MODIFICATIONS: dict[str, tuple[bool, Audio]] = {
    "real": (False, "real"),
    "audio_modified": (False, "fake"),
    "visual_modified": (True, "real"),
    "both_modified": (True, "fake"),
}
"""Whether the images are fake, and the sound, by `modify_type`."""

MODELS = {"Talklip": "Talklip", "diff2lip": "diff2lip"}
"""The domains by `video_model`."""

CORPORA = ("vox_celeb_2", "lrs3", "silent_videos")


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "avdeepfake1m_pp",
    metadata: str = "val_metadata.json",
    real_with_fake_audio: bool = False,
    split: Split = "test",
    frames: str | None = None,
) -> Iterator[Entry]:
    """The videos that the metadata lists.

    Args:
        metadata: the list; its videos lie in a folder of its name (`val`), or in the root.
        real_with_fake_audio: take real images under fake speech, as real; they repeat images.
        split: the split of all videos; the official test videos have no public labels.
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: missing or damaged metadata, an unknown modification, model or corpus, or a
            video that it contradicts itself about.
    """
    path = root / metadata
    if not path.is_file():
        raise InputError(f"There is no {path}", "give the folder that holds it as data.root=PATH")
    listed = read_entries(
        path, lambda row, file: _described(row, file, path, dataset, split, real_with_fake_audio)
    )
    below = root / metadata.removesuffix("_metadata.json")
    found, problems = find_videos(below if below.is_dir() else root, frames)
    yield from problems
    yield from describe(found, listed, dataset, path, root)


def _described(
    row: dict[str, Any],
    file: str,
    path: Path,
    dataset: str,
    split: Split,
    real_with_fake_audio: bool,
) -> Described | None:
    """What an entry of the metadata says; None for what is left out."""
    fake, audio = require_choice(row.get("modify_type"), MODIFICATIONS, path, file, "modify_type")
    if row.get("fake_segments") and row["modify_type"] == "real":
        raise InputError(f"{file} in {path} is real, but has fake segments", CORRECT_ENTRY)
    if (name := _name(file)) is None:
        raise InputError(
            f"{file} in {path} lies in none of the folders {', '.join(CORPORA)}", CORRECT_ENTRY
        )
    if not fake:
        kept = audio == "real" or real_with_fake_audio
        return Described(REAL, name, split, audio=audio) if kept else None
    domain = require_choice(row.get("video_model"), MODELS, path, file, "video_model")
    original = row.get("original")
    of = _name(original) if isinstance(original, str) else None
    return Described(domain, name, split, pair_id(dataset, "", of), audio)


def _name(file: str) -> str | None:
    """The name of a video: its path, the last part after its person; None outside the corpora."""
    parts = PurePosixPath(file).with_suffix("").parts
    if len(parts) < 3 or parts[0] not in CORPORA:
        return None
    subject = re.match(r"subject_\d+", parts[1])
    person = group_name(subject[0].replace("_", "") if subject else parts[1])
    return "/".join((*parts[:-1], f"{person}_{parts[-1]}"))
