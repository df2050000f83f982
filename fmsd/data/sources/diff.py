"""DiFF, Diffusion Facial Forgery: faces by 13 diffusion models under four conditions.

Cheng et al., ACM Multimedia 2024, arXiv 2401.15859.

    ROOT/{train,val,test}/{T2I,I2I,FS,FE}/METHOD/*.png      fake
    ROOT/{train,val,test}/real/*.png                        real, or the folders of source.reals

The levels may be in another order, and that of the method or of the split may be missing. The
domain is the condition with the method: `T2I_Midjourney`. Each image is a video.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, video_id
from fmsd.data.sources.reals import Reals, check_split, real_folders
from fmsd.data.sources.tree import refuse_unreadable, walk_folders
from fmsd.errors import InputError

CONDITIONS = {"t2i": "T2I", "i2i": "I2I", "fs": "FS", "fe": "FE"}
"""Text to image, image to image, face swapping and face editing, by folder in lower case."""

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
}
"""The split of each folder of one, in lower case."""

WHICH = "the folder of the pristine images, which its authors send on request,"


@refuse_unreadable
def scan(
    root: Path, dataset: str = "diff", split: Split = "test", reals: Reals = None
) -> Iterator[Entry]:
    """The generated images, and the real ones.

    Args:
        split: of the images that lie in no folder of a split.
        reals: folders of real images, with or without folders of splits, where the root has none
            in folders `real`.

    Raises:
        InputError: no generated images, no real ones, or a folder that has two conditions or two
            splits above it.
    """
    check_split(split)
    if not root.is_dir():
        raise InputError(f"There is no folder {root}", "give the folder DiFF as data.root=PATH")
    labels: set[int] = set()
    for place, (_, images, _, problems) in walk_folders(root):
        yield from problems
        if not images:
            continue
        parts = place.relative_to(root).parts
        levels = [part.lower() for part in parts]
        named = [*(CONDITIONS[name] for name in levels if name in CONDITIONS)]
        named += [REAL for name in levels if name == REAL]
        part = _split(place, levels, split)
        if len(named) > 1:
            raise InputError(
                f"The images in {place} lie in {' and in '.join(named)}",
                "move them to one of these",
            )
        if not named:
            what = f"The images in {place} lie in none of T2I, I2I, FS, FE, real and are left out"
            yield Problem(
                "misplaced", what, "move them, or data.root, to one of these", len(images)
            )
            continue
        below = [part for part, level in zip(parts, levels, strict=True) if not _is_level(level)]
        domain = REAL if named[0] == REAL else "_".join((named[0], *below[:1]))
        labels.add(0 if domain == REAL else 1)
        yield from _frames(place, images, dataset, domain, part, "/".join(parts))
    if 1 not in labels:
        raise InputError(
            f"{root} holds no images below T2I, I2I, FS or FE", "unpack the archives of DiFF there"
        )
    if reals is not None or 0 not in labels:
        for number, folder in enumerate(real_folders(reals, "DiFF", WHICH), 1):
            for place, (_, images, _, problems) in walk_folders(folder):
                yield from problems
                inner = place.relative_to(folder).parts
                part = _split(place, [name.lower() for name in (folder.name, *inner)], split)
                yield from _frames(
                    place, images, dataset, REAL, part, "/".join((f"reals{number}", *inner))
                )


def _split(place: Path, levels: Sequence[str], otherwise: Split) -> Split:
    """The split of a folder of images.

    Args:
        levels: the folder and those above it, in lower case.
        otherwise: the split where none of them names one.

    Raises:
        InputError: they name two.
    """
    splits: set[Split] = {SPLIT_FOLDERS[name] for name in levels if name in SPLIT_FOLDERS}
    if len(splits) > 1:
        raise InputError(
            f"The images in {place} lie in {' and in '.join(sorted(splits))}",
            "move them to one of these",
        )
    return splits.pop() if splits else otherwise


def _is_level(name: str) -> bool:
    return name in CONDITIONS or name in SPLIT_FOLDERS or name == REAL


def _frames(
    place: Path, images: list[str], dataset: str, domain: str, split: Split, where: str
) -> Iterator[Frame]:
    """The images of a folder, a video each.

    Args:
        where: the folder in the ids, which keeps equal names in two folders apart.
    """
    label = 0 if domain == REAL else 1
    for name in images:
        identity = video_id(dataset, domain, "", f"{where}/{name}")
        yield Frame(place / name, label, dataset, domain, identity, 0, split)
