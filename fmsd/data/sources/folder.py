"""Any folder of images whose path says what they are, e.g. `ROOT/train/Deepfakes/000_003/0001.png` or `ROOT/test/real/portrait.jpg`."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from fmsd.data.image import in_order, is_image
from fmsd.types import REAL, Frame, InputError, Split, video_id

log = logging.getLogger(__name__)

FIELDS = ("dataset", "split", "domain", "compression", "video")


def scan(
    root: Path,
    dataset: str,
    layout: str,
    splits: Mapping[str, Split],
    real: Sequence[str],
    split: Split | None = None,
) -> Iterator[Frame]:
    """The images under `root`, described by the folders they lie in.

    Args:
        dataset: the dataset's name, where the layout does not tell it.
        layout: one field per folder level, of `{dataset} {split} {domain} {compression} {video}`, e.g. `{split}/{domain}/{video}`.
            A level may also be a fixed name, or `*` for any. Images that lie directly in the `{domain}` folder are a video each.
        splits: what each split folder stands for, e.g. `{validation: val}`.
        real: names of domain folders that hold real images; every other domain folder names a forgery.
        split: the split of all images, where the layout does not tell it.

    Raises:
        InputError: a missing root, or folders that the layout and its mappings do not explain.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give the dataset's folder as data.root=PATH.")
    levels = layout.strip("/").split("/")
    named = re.findall(r"{(\w+)}", layout)
    if unknown := set(named) - set(FIELDS):
        raise InputError(f"The layout {layout!r} has unknown fields {sorted(unknown)}; use {', '.join('{' + field + '}' for field in FIELDS)}.")
    if "domain" not in named or ("split" in named) == (split is not None):
        raise InputError(f"The layout {layout!r} must hold {{domain}}, and either {{split}} or data.source.split=train|val|test must be given.")
    domains: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        images = sorted(name for name in files if is_image(Path(name)))
        if not images:
            continue
        parts = Path(folder).relative_to(root).parts
        found = _parse(parts, levels)
        if found is None:
            raise InputError(f"The images in {folder} do not fit the layout {layout!r}; set data.source.layout, or move them out of {root}.")
        name = found["domain"]
        domains.add(name)
        domain = REAL if name in real else name
        if "split" in found and found["split"] not in splits:
            raise InputError(
                f"The folder {folder} is in no known split ({', '.join(splits)}); add it with '+data.source.splits.{found['split']}=train'."
            )
        for index, file in enumerate(in_order(images)):
            flat = "video" not in found
            yield Frame(
                path=Path(folder) / file,
                label=0 if domain == REAL else 1,
                dataset=found.get("dataset", dataset),
                domain=domain,
                video=video_id(found.get("dataset", dataset), domain, found.get("compression", ""), _video(found, file)),
                index=0 if flat else index,
                split=splits[found["split"]] if "split" in found else cast(Split, split),
                compression=found.get("compression", ""),
            )
    log.info("%s: %s hold real images, %s are forgeries.", root, sorted(domains & set(real)) or "none", sorted(domains - set(real)) or "none")
    if domains and not domains & set(real):
        raise InputError(f"None of the folders {sorted(domains)} holds real images; name them in data.source.real=[...].")


def _parse(parts: Sequence[str], levels: Sequence[str]) -> dict[str, str] | None:
    """Field values of a folder's path, or None if it does not fit; the video level may be missing."""
    if len(parts) == len(levels) - 1 and levels[-1] == "{video}":
        levels = levels[:-1]
    if len(parts) != len(levels):
        return None
    found: dict[str, str] = {}
    for part, level in zip(parts, levels, strict=True):
        if level.startswith("{"):
            found[level.strip("{}")] = part
        elif level == "*":
            found["*"] = "/".join(filter(None, (found.get("*"), part)))
        elif level != part:
            return None
    return found


def _video(found: Mapping[str, str], file: str) -> str:
    """A video's name within its domain.

    It holds what `*` stood for, so that equal names under two folders stay two videos; that of a lone image also holds its split, as they
    often share names like `0001.jpg` across splits.
    """
    parts = (found.get("*"), found["video"]) if "video" in found else (found.get("*"), found.get("split"), file)
    return "/".join(filter(None, parts))
