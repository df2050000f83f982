"""Layouts of folders: patterns of the levels of a path, such as `{split}/{domain}/{video}`.

A level is a field, several fields (`{domain}_{video}`), a fixed name, or `*` for any name.
"""

import re
from collections.abc import Mapping, Sequence

from fmsd.data.sources.tree import SIDE_FOLDERS
from fmsd.errors import InputError

FIELDS = ("dataset", "split", "domain", "compression", "video")
"""The fields of a layout."""


def parse_layout(layout: str, split: str | None, splits: Sequence[str]) -> list[str]:
    """The levels of a layout.

    Args:
        split: the split of all files, for a layout without `{split}`.
        splits: the valid splits.

    Raises:
        InputError: the layout has unknown, repeated or missing fields, or the split is given twice,
            not at all, or is unknown.
    """
    fields = re.findall(r"{(\w+)}", layout)
    if unknown := set(fields) - set(FIELDS):
        raise InputError(
            f"The layout {layout!r} has unknown fields {', '.join(sorted(unknown))}",
            f"use {', '.join('{' + field + '}' for field in FIELDS)}",
        )
    if repeated := sorted({field for field in fields if fields.count(field) > 1}):
        raise InputError(
            f"The layout {layout!r} holds {', '.join('{' + field + '}' for field in repeated)} "
            "more than once",
            "write * for what does not matter",
        )
    if "domain" not in fields:
        raise InputError(
            f"The layout {layout!r} lacks the domain",
            "write {domain} in data.source.layout for the level that separates real from fake",
        )
    if "split" not in fields and split is None:
        raise InputError(
            f"The layout {layout!r} lacks the split",
            "add {split} to it, or give all files one: data.source.split=train, val or test",
        )
    if "split" in fields and split is not None:
        raise InputError(
            f"The layout {layout!r} has the split, and so has data.source.split={split}",
            "leave data.source.split out",
        )
    if split is not None and split not in splits:
        raise InputError(
            f"data.source.split={split} is no split", f"choose one of {', '.join(splits)}"
        )
    return layout.strip("/").split("/")


def match_layout(parts: Sequence[str], levels: Sequence[str]) -> dict[str, str] | None:
    """The fields of a path, and the names under `*`; None if it does not match.

    A last level `{video}` may be missing.
    """
    if len(parts) == len(levels) - 1 and levels[-1] == "{video}":
        levels = levels[:-1]
    if len(parts) != len(levels):
        return None
    fields: dict[str, str] = {}
    for part, level in zip(parts, levels, strict=True):
        if level == "*":
            fields["*"] = "/".join(filter(None, (fields.get("*"), part)))
            continue
        match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(level)), part)
        if match is None:
            return None
        fields |= match.groupdict()
    return fields


def should_hold_frames(parts: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a folder should contain frames, or folders of them, by the layout."""
    depth = min(len(parts), len(levels))  # deeper folders are of a video, too
    return (
        depth > 0
        and match_layout(parts[:depth], levels[:depth]) is not None
        and not any(part.lower() in SIDE_FOLDERS for part in parts)
    )


def video_name(fields: Mapping[str, str], file: str) -> str:
    """A video's name within its domain, by the fields of its path.

    It contains the names under `*`, so that equal names in two folders are two videos. The name of
    a single image also contains its split, as splits often share names like `0001.jpg`.

    Args:
        file: name of the image file.
    """
    own = (fields["video"],) if "video" in fields else (fields.get("split"), file)
    return "/".join(filter(None, (fields.get("*"), *own)))
