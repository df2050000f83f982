"""Deepfake Detection Challenge (Dolhansky et al., 2020, arXiv 2006.07397) in its official tree.

    ROOT/train/dfdc_train_part_0/{metadata.json,aaqaifqrwn.mp4,...}
    ROOT/validation/{labels.csv,...}
    ROOT/test/{labels.csv,metadata.json,aalscayrfi.mp4,...}

Folders may lie one deeper, as the archives are unpacked (`dfdc_train_part_00/dfdc_train_part_0`),
or directly in the root. `metadata.json` holds `{"x.mp4": {"label": "FAKE", "split": "train",
"original": "y.mp4"}}`, where `original` is the real video that a fake was made from, or
`{"x.mp4": {"is_fake": 1}}` for the test videos; `labels.csv` the columns filename and label (1 =
fake). Frames may be extracted beside the videos: `test/frames/aalscayrfi/000.png`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources.labels import LABEL_DIGITS, LABEL_WORDS, Label, parse_label
from fmsd.data.sources.text import read_csv_table, read_json, require_choice, require_kind
from fmsd.data.sources.tree import FAKE, list_videos, read_folder, refuse_unreadable
from fmsd.data.spelling import match_names, to_nfc, with_slashes
from fmsd.errors import InputError

LABEL_COLUMNS: dict[str, Mapping[str, Label]] = {
    "label": LABEL_WORDS | LABEL_DIGITS,
    "is_fake": LABEL_DIGITS,
}
"""The columns of labels in the lists, and the values of each."""

SPLIT_OF_NAME: dict[str, Split] = {
    "train": "train",
    "validation": "val",
    "val": "val",
    "test": "test",
}
"""The splits by the names of folders, and in the lists."""

MAX_DEPTH = 3
"""Largest depth below the root of a part of the dataset."""


class _Listed(NamedTuple):
    """What a list says of a video.

    Args:
        original: the name of the real video that a fake was made from, where the list has it.
    """

    label: Label
    split: Split
    original: str | None


@refuse_unreadable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of every part with labels, in the splits of the lists or of the folders' names.

    Args:
        frames: name of the folders that hold extracted frames; detected where there is only one.

    Raises:
        InputError: no part, labels that cannot be read, or a part whose split is unknown.
    """
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the folder of the DFDC as data.root=PATH"
        )
    parts: dict[Path, dict[str, _Listed]] = {}
    for part in _parts(root, MAX_DEPTH):
        if isinstance(part, Problem):
            yield part
        else:
            parts[part] = _read_labels(part, root)
    if not parts:
        raise InputError(
            f"{root} holds no folder with a metadata.json or labels.csv",
            "give the folder of the DFDC as data.root=PATH",
        )
    times = Counter(to_nfc(name) for labels in parts.values() for name in labels)
    for folder, listed in parts.items():
        videos, problems = list_videos(folder, frames)
        domains = {name: FAKE if about.label else REAL for name, about in listed.items()}
        labels, more = match_names(listed, videos, f"the list of {folder.name}", folder, domains)
        yield from (*problems, *more)
        for name, (file, images) in videos.items():
            if name not in labels:
                yield Problem(
                    "unlisted",
                    f"{images or file} has no label and is left out",
                    f"remove it, or fetch the list of {folder} again",
                )
                continue
            label, split, original = labels[name]
            domain = FAKE if label else REAL
            key, partner = (
                f"{folder.relative_to(root).as_posix()}/{one}"
                if one is not None and times[to_nfc(one)] > 1
                else one
                for one in (name, original)
            )
            yield Video(
                file,
                images,
                label,
                dataset,
                domain,
                video_id(dataset, domain, "", key or name),
                split,
                pair=pair_id(dataset, "", partner) if label else "",
            )


def _parts(folder: Path, depth: int) -> Iterator[Path | Problem]:
    """The folders with labels, in order; a problem for each with videos but no labels."""
    if (folder / "labels.csv").is_file() or (folder / "metadata.json").is_file():
        yield folder
        return
    inside = read_folder(folder)
    if inside.videos:
        yield Problem(
            "unlabelled",
            f"{folder} holds videos without metadata.json or labels.csv",
            "they are left out: put their labels there",
        )
    yield from inside.problems
    if depth:
        for child in inside.folders:
            yield from _parts(folder / child, depth - 1)


def _read_labels(folder: Path, root: Path) -> dict[str, _Listed]:
    """The label, split and original of every video in the list of a part.

    Of the test set's two lists, labels.csv is read.
    """
    path = folder / "labels.csv" if (folder / "labels.csv").is_file() else folder / "metadata.json"
    labels_of: dict[str, _Listed] = {}
    for name, about in _read_list(path):
        label = _label(name, about, path)
        value = about.get("split")
        split = (
            require_choice(value, SPLIT_OF_NAME, path, name, "split")
            if value
            else _folder_split(path, root)
        )
        listed = _Listed(label, split, _original(name, about, path))
        stem = PurePosixPath(with_slashes(name)).stem
        if labels_of.setdefault(stem, listed) != listed:
            raise InputError(
                f"{path} lists {name} twice, with two labels, splits or originals",
                "fetch it again, or leave the right one",
            )
    return labels_of


def _original(name: str, about: Mapping[str, Any], path: Path) -> str | None:
    """The name of a video's original by a list, without its suffix; None where it has none."""
    value = about.get("original")
    if value is None:
        return None
    return PurePosixPath(with_slashes(require_kind(value, str, path, name, "original"))).stem


def _label(name: str, about: Mapping[str, Any], path: Path) -> Label:
    """The label of a video by a list.

    Args:
        about: the list's values for the video.

    Raises:
        InputError: the video has no label, an unknown one, or two different ones.
    """
    values = {column: about[column] for column in LABEL_COLUMNS if column in about}
    labels: set[Label | None] = {
        parse_label(value, LABEL_COLUMNS[column]) for column, value in values.items()
    }
    label = labels.pop() if len(labels) == 1 else None
    if label is not None:
        return label
    given = " and ".join(f"{column}={value!r}" for column, value in values.items()) or "none"
    raise InputError(
        f"{path} does not give each video a label: {name} has {given}",
        "correct that to REAL or FAKE (is_fake: 0 or 1)",
    )


def _read_list(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, values) of the videos in a list."""
    if path.suffix == ".csv":
        header, rows = read_csv_table(path, ("filename", "label"), ("split",))
        for _, cells in rows:
            about = dict(zip(header, cells, strict=True))
            yield about["filename"], about
    else:
        for name, about in read_json(path).items():
            yield name, require_kind(about, dict, path, name)


def _folder_split(path: Path, root: Path) -> Split:
    """The split of the nearest folder above a list whose name is a split's.

    Raises:
        InputError: no folder above the list has such a name.
    """
    for place in path.parents:
        if place.name in SPLIT_OF_NAME and (place == root or root in place.parents):
            return SPLIT_OF_NAME[place.name]
    raise InputError(
        f"The split of the videos of {path} is unknown",
        "name their folder train, validation or test",
    )
