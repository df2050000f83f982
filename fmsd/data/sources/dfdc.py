"""Deepfake Detection Challenge (Dolhansky et al., 2020, arXiv 2006.07397) in its official tree.

    ROOT/train/dfdc_train_part_0/{metadata.json,aaqaifqrwn.mp4,...}
    ROOT/validation/{labels.csv,...}
    ROOT/test/{labels.csv,metadata.json,aalscayrfi.mp4,...}

Folders may lie one deeper, as the archives are unpacked (`dfdc_train_part_00/dfdc_train_part_0`),
or directly in the root. `metadata.json` holds `{"x.mp4": {"label": "FAKE", "split": "train",
"original": "y.mp4"}}`, or `{"x.mp4": {"is_fake": 1}}` for the test videos; `labels.csv` the columns
filename and label (1 = fake). Frames may be extracted beside the videos:
`test/frames/aalscayrfi/000.png`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.labels import NUMBERS, WORDS, Label, stated
from fmsd.data.sources.text import checked, choice, read_csv, read_json
from fmsd.data.sources.tree import FAKE, clips, contents, readable
from fmsd.data.spelling import composed, matched, slashed
from fmsd.errors import InputError

LABELS: dict[str, Mapping[str, Label]] = {"label": WORDS | NUMBERS, "is_fake": NUMBERS}
"""What the columns of the lists state a label by."""

SPLITS: dict[str, Split] = {"train": "train", "validation": "val", "val": "val", "test": "test"}
DEPTH = 3
"""How many folders deep below the root a part of the dataset may lie."""


@readable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of every part with labels, in the splits that they or the folders' names tell.

    Args:
        frames: name of the folders that hold extracted frames; found by itself where there is only
            one.

    Raises:
        InputError: no part, labels that cannot be read, or a part whose split is unknown.
    """
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the folder of the DFDC as data.root=PATH"
        )
    parts: dict[Path, dict[str, tuple[Label, Split]]] = {}
    for found in _parts(root, DEPTH):
        if isinstance(found, Problem):
            yield found
        else:
            parts[found] = _labels(found, root)
    if not parts:
        raise InputError(
            f"{root} holds no folder with a metadata.json or labels.csv",
            "give the folder of the DFDC as data.root=PATH",
        )
    times = Counter(composed(name) for labels in parts.values() for name in labels)
    for folder, listed in parts.items():
        held, problems = clips(folder, frames)
        labels, more = matched(listed, held, f"the list of {folder.name}", folder)
        yield from (*problems, *more)
        for name, (file, images) in held.items():
            if name not in labels:
                yield Problem(
                    "unlisted",
                    f"{images or file} has no label and is left out",
                    f"remove it, or fetch the list of {folder} again",
                )
                continue
            label, split = labels[name]
            domain = FAKE if label else REAL
            own = (
                name
                if times[composed(name)] == 1
                else f"{folder.relative_to(root).as_posix()}/{name}"
            )
            yield Video(
                file, images, label, dataset, domain, video_id(dataset, domain, "", own), split
            )


def _parts(folder: Path, depth: int) -> Iterator[Path | Problem]:
    """The folders with labels, in order; a problem for each with videos alone."""
    if (folder / "labels.csv").is_file() or (folder / "metadata.json").is_file():
        yield folder
        return
    held = contents(folder)
    if held.videos:
        yield Problem(
            "unlabelled",
            f"{folder} holds videos without metadata.json or labels.csv",
            "they are left out: put their labels there",
        )
    yield from held.problems
    if depth:
        for child in held.folders:
            yield from _parts(folder / child, depth - 1)


def _labels(folder: Path, root: Path) -> dict[str, tuple[Label, Split]]:
    """The label and split of every video that a part lists; of the test set's two lists, labels.csv."""
    path = folder / "labels.csv" if (folder / "labels.csv").is_file() else folder / "metadata.json"
    found: dict[str, tuple[Label, Split]] = {}
    for name, about in _listed(path):
        split = about.get("split")
        kept = (
            _label(name, about, path),
            choice(split, SPLITS, path, name, "split") if split else _split(path, root),
        )
        if found.setdefault(PurePosixPath(slashed(name)).stem, kept) != kept:
            raise InputError(
                f"{path} lists {name} twice, with two labels or splits",
                "fetch it again, or leave the right one",
            )
    return found


def _label(name: str, about: Mapping[str, Any], path: Path) -> Label:
    """The label that a list states for a video.

    Raises:
        InputError: it states none, one that is unknown, or two.
    """
    values = {column: about[column] for column in LABELS if column in about}
    labels: set[Label | None] = {stated(value, LABELS[column]) for column, value in values.items()}
    label = labels.pop() if len(labels) == 1 else None
    if label is not None:
        return label
    said = (
        "has none"
        if not values
        else "has " + " and ".join(f"{column}={value!r}" for column, value in values.items())
    )
    raise InputError(
        f"{path} does not give each video a label: {name} {said}",
        "correct that to REAL or FAKE (is_fake: 0 or 1)",
    )


def _listed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names of the videos of a list, and what it says of them."""
    if path.suffix == ".csv":
        header, rows = read_csv(path, ("filename", "label"), ("split",))
        for _, cells in rows:
            about = dict(zip(header, cells, strict=True))
            yield about["filename"], about
    else:
        for name, about in read_json(path).items():
            yield name, checked(about, dict, path, name)


def _split(path: Path, root: Path) -> Split:
    """The split of the nearest folder above a list that is named after one."""
    for place in path.parents:
        if place.name in SPLITS and (place == root or root in place.parents):
            return SPLITS[place.name]
    raise InputError(
        f"Nothing tells the split of the videos of {path}",
        "name their folder train, validation or test",
    )
