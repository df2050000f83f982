"""The masks of the videos to extract: those of the dataset's tree, or those that the user names."""

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmsd.data.extraction.masks import Mask
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.sources.tree import VIDEO_SUFFIXES, read_folder
from fmsd.errors import InputError

AUTO = "auto"
"""The choice of the masks in the dataset's tree."""

MASK_FIELDS = ("dataset", "split", "domain", "compression", "video")
"""The fields of a pattern of masks; `video` is the last part of a video's id."""


def assign_masks(sources: Sequence[SourceVideo], mask: str | None) -> list[SourceVideo]:
    """The videos with their masks: of each fake its own, of each real video those of its fakes.

    Args:
        sources: all videos of the source, with the masks of its tree.
        mask: `AUTO`, None for no masks, or a folder or pattern of the masks of the fakes, such as
            `/masks/{domain}/{video}.mp4`; a folder means the pattern FOLDER/{video}.

    Raises:
        InputError: the pattern has an unknown field, or no fake has a mask by it.
    """
    if mask is None:
        return [replace(source, masks=()) for source in sources]
    if mask != AUTO:
        sources = [replace(source, masks=named_masks(source, mask)) for source in sources]
        if not any(source.masks for source in sources):
            raise InputError(
                f"mask={mask} names a mask of none of the fake videos",
                f"correct it; fields are {', '.join('{' + name + '}' for name in MASK_FIELDS)}",
            )
    of_real: dict[str, tuple[Mask, ...]] = {}
    for source in sources:
        if source.label and source.pair:
            of_real[source.pair] = of_real.get(source.pair, ()) + source.masks
    return [
        source if source.label else replace(source, masks=of_real.get(source.video, ()))
        for source in sources
    ]


def named_masks(source: SourceVideo, pattern: str) -> tuple[Mask, ...]:
    """The mask of a fake by a user's pattern; none of a real video, or where there is no such file.

    Raises:
        InputError: the pattern has an unknown field.
    """
    if unknown := set(re.findall(r"{(\w*)}", pattern)) - set(MASK_FIELDS):
        raise InputError(
            f"mask={pattern} has the unknown fields {sorted(unknown)}",
            f"use {', '.join('{' + name + '}' for name in MASK_FIELDS)}",
        )
    if not source.label:
        return ()
    if not re.search(r"{\w+}", pattern):
        pattern += "/{video}"
    fields = {name: str(getattr(source, name)) for name in MASK_FIELDS}
    fields["video"] = source.video.rpartition("/")[2]
    path = Path(re.sub(r"{(\w+)}", lambda match: fields[match[1]], pattern))
    suffix = path.suffix if path.suffix.lower() in VIDEO_SUFFIXES else ""
    found = _masks_in(path.parent).get(path.name.removesuffix(suffix))
    return () if found is None else (Mask(source.video, found),)


@functools.cache
def _masks_in(folder: Path) -> dict[str, Path]:
    """The clips and folders in a folder by their names; none where it is missing."""
    if not folder.is_dir():
        return {}
    inside = read_folder(folder)
    clips = {Path(name).stem: folder / name for name in inside.videos}
    return {name: folder / name for name in inside.folders} | clips
