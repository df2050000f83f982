"""Any folder of images or videos whose path says what they are.

For example `ROOT/train/Deepfakes/000_003/0001.png`, `ROOT/test/real/portrait.jpg` or `ROOT/test/real/clip.mp4`.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fmsd.data.clip import SIDE, readable, walk, without_frames
from fmsd.errors import InputError
from fmsd.types import REAL, Entry, Frame, Split, Video, video_id

log = logging.getLogger(__name__)

FIELDS = ("dataset", "split", "domain", "compression", "video")


@readable
def scan(
    root: Path,
    dataset: str,
    layout: str,
    splits: Mapping[str, Split],
    real: Sequence[str],
    split: Split | None = None,
) -> Iterator[Entry]:
    """The images and videos under `root`, described by the folders they lie in.

    Args:
        dataset: the dataset's name, where the layout does not tell it.
        layout: what each folder level is, made of `{dataset} {split} {domain} {compression} {video}`, e.g. `{split}/{domain}/{video}`. A level may
            also be a fixed name, or `*` for any, or hold several fields: `{domain}_{video}`. The last level is a folder of frames or, without its
            ending, a video file. Images that lie directly in the `{domain}` folder are a video each.
        splits: what each split folder stands for, e.g. `{validation: val}`.
        real: names of domain folders that hold real images; every other domain folder names a forgery.
        split: the split of all images, where the layout does not tell it.

    Raises:
        InputError: a missing or unreadable root, a layout that cannot be used, or folders that it and its mappings do not explain.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}", "give the dataset's folder as data.root=PATH")
    levels = layout.strip("/").split("/")
    named = re.findall(r"{(\w+)}", layout)
    if unknown := set(named) - set(FIELDS):
        raise InputError(f"The layout {layout!r} has unknown fields {sorted(unknown)}", f"use {', '.join('{' + field + '}' for field in FIELDS)}")
    if again := sorted({field for field in named if named.count(field) > 1}):
        raise InputError(
            f"The layout {layout!r} holds {', '.join('{' + field + '}' for field in again)} more than once", "write * for what does not matter"
        )
    if "domain" not in named or ("split" in named) == (split is not None):
        raise InputError(
            f"The layout {layout!r} does not tell domain and split",
            "it must hold {{domain}}, and either {{split}} or data.source.split=train|val|test must be given",
        )
    domains: set[str] = set()

    def described(path: Path, parts: Sequence[str]) -> dict[str, str]:
        found = _parse(parts, levels)
        if found is None:
            raise InputError(f"{path} does not fit the layout {layout!r}", f"set data.source.layout, or move it out of {root}")
        if "split" in found and found["split"] not in splits:
            raise InputError(f"{path} is in no known split ({', '.join(splits)})", f"add it with '+data.source.splits.{found['split']}=train'")
        domains.add(found["domain"])
        return found

    def about(found: Mapping[str, str], name: str) -> dict[str, Any]:
        domain = REAL if found["domain"] in real else found["domain"]
        home, quality = found.get("dataset", dataset), found.get("compression", "")
        kind: Split = splits[found["split"]] if "split" in found else cast(Split, split)
        described = {"label": int(domain != REAL), "dataset": home, "domain": domain, "split": kind, "compression": quality}
        return described | {"video": video_id(home, domain, quality, name)}

    for place, (subfolders, images, films, problems) in walk(root):
        parts = place.relative_to(root).parts
        yield from problems
        for name in films:
            found = described(place / name, (*parts, Path(name).stem))
            yield Video(place / name, None, **about(found, _video(found, name)))
        if not (subfolders or images or films) and _empty(parts, levels):
            yield without_frames(place)
        if not images:
            continue
        found = described(place, parts)
        for index, file in enumerate(images):
            yield Frame(path=place / file, index=index if "video" in found else 0, **about(found, _video(found, file)))
    log.info("%s: %s hold real images, %s are forgeries.", root, sorted(domains & set(real)) or "none", sorted(domains - set(real)) or "none")
    if domains and not domains & set(real):
        raise InputError(f"None of the folders {sorted(domains)} holds real images", "name them in data.source.real=[...]")


def _empty(parts: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a folder that holds no frames should hold some by the layout."""
    return 0 < len(parts) <= len(levels) and _parse(parts, levels[: len(parts)]) is not None and not any(part.lower() in SIDE for part in parts)


def _parse(parts: Sequence[str], levels: Sequence[str]) -> dict[str, str] | None:
    """Field values of a path, or None if it does not fit; the video level may be missing."""
    if len(parts) == len(levels) - 1 and levels[-1] == "{video}":
        levels = levels[:-1]
    if len(parts) != len(levels):
        return None
    found: dict[str, str] = {}
    for part, level in zip(parts, levels, strict=True):
        if level == "*":
            found["*"] = "/".join(filter(None, (found.get("*"), part)))
            continue
        match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(level)), part)
        if match is None:
            return None
        found |= match.groupdict()
    return found


def _video(found: Mapping[str, str], file: str) -> str:
    """A video's name within its domain.

    It holds what `*` stood for, so that equal names under two folders stay two videos; that of a lone image also holds its split, as they
    often share names like `0001.jpg` across splits.
    """
    parts = (found.get("*"), found["video"]) if "video" in found else (found.get("*"), found.get("split"), file)
    return "/".join(filter(None, parts))
