"""Datasets in the JSON format of DeepfakeBench (Yan et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2307.01426), which DF40 shares.

    {DATASET: {LABEL: {SPLIT: {VIDEO: {"label": LABEL, "frames": [PATH, ...]}}}}}
    {DATASET: {LABEL: {SPLIT: {COMPRESSION: {VIDEO: {...}}}}}}         FaceForensics++ and its relatives

Its JSON files list many videos in several splits: the test videos of Celeb-DF also stand in train,
all of DeepFakeDetection stands in train, val and test. Here a video has one split: test wins over
val, val over train, and what was left out is said.

A label is real or fake by its last word (`CelebDFv2_real`, `DFDC_Fake`) or by the tables below; any
other one has to be settled by the user.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data import overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, video_id
from fmsd.data.loading.image import natural_sort
from fmsd.data.sources.labels import Label, forgery, last_word
from fmsd.data.sources.labels import checked as checked_labels
from fmsd.data.sources.text import checked, member, read_json
from fmsd.data.sources.tree import readable
from fmsd.data.spelling import Spelling, slashed
from fmsd.errors import InputError

FOLDERS = (".", "dataset_json", "preprocessing/dataset_json")
"""Where a JSON file is looked for, below the root."""

IMAGES = (".", "rgb", "datasets/rgb", "datasets")
"""Where frames are looked for, below the root."""

DOMAINS = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
    "FF-SH": "FaceShifter",
    "DFD_fake": "DeepFakeDetection",
    "CelebDFv1_fake": "Celeb-synthesis",
    "CelebDFv2_fake": "Celeb-synthesis",
    "DFDC_Fake": "fake",
    "DFDCP_FakeA": "method_A",
    "DFDCP_FakeB": "method_B",
    "DF_fake": "end_to_end",
    "UADFV_Fake": "fake",
}
"""What the datasets' own trees call the forgeries that the JSON files have labels for; other labels are a domain each."""

SETTLED: dict[str, Label] = {
    "whichisreal_real": 0,
    "whichisreal_fake": 1,
    "whichfaceisreal_real": 0,
    "whichfaceisreal_fake": 1,
}
"""Labels, in lower case, that hold both words: those of one of DF40's methods."""

TRIED = 32
"""How many of the videos, evenly spread, are looked for to find where a list's paths hang."""

ABSENT = object()
"""In place of a video's own label, where it has none."""

_DOMAINS = {name.casefold(): domain for name, domain in DOMAINS.items()}

PRIORITY: tuple[Split, ...] = ("test", "val", "train")


@readable
def scan(
    root: Path,
    file: str | Sequence[str],
    dataset: str | int | None = None,
    compression: str | int | None = None,
    labels: Mapping[Any, Any] | None = None,
) -> Iterator[Entry]:
    """The frames that one or several JSON files list.

    Args:
        file: JSON file or files; a bare name is looked for in `ROOT`, `ROOT/dataset_json` and
            `ROOT/preprocessing/dataset_json`.
        dataset: the name to give the dataset, instead of the one in the JSON.
        compression: `c23`, `c40` or `raw`, where the JSON holds several.
        labels: 0 (real) or 1 (fake) for label names that do not tell it themselves.

    Raises:
        InputError: a missing or damaged JSON file, an unknown or contradictory label, an unknown
            compression, frames that do not lie under the root, or `labels` of which no file holds
            one.
    """
    given, met = checked_labels(labels or {}, "data.source.labels"), dict[str, None]()
    for one in [file] if isinstance(file, str) else file:
        yield from listed(root, one, dataset, compression, given, met)
    check_met(given, met, file)


def listed(
    root: Path,
    file: str,
    dataset: str | int | None,
    compression: str | int | None,
    labels: Mapping[str, Label],
    met: dict[str, None],
) -> Iterator[Entry]:
    """The frames that one JSON file lists; its label names are added to `met`."""
    path = _found(root, file)
    own = None if dataset is None else overrides.as_name(dataset, "data.source.dataset")
    level = (
        None if compression is None else overrides.as_name(compression, "data.source.compression")
    )
    for title, groups in grouped(path).items():
        yield from _dataset(root, path, own or title, groups, level, labels, met)


def check_met(labels: Mapping[str, Label], met: Iterable[str], where: object) -> None:
    """Refuses labels given for names that none of the files holds.

    Raises:
        InputError: there is one.
    """
    if unmet := [name for name in labels if name not in met]:
        raise InputError(
            f"data.source.labels gives {unmet[0]!r}, but the labels of {where} are "
            f"{', '.join(met)}",
            "correct it, or leave it out",
        )


@readable
def either(
    root: Path,
    file: str,
    tree: Callable[[Path], Iterable[Entry]],
    dataset: str,
    compression: str | int | None = None,
    labels: Mapping[Any, Any] | None = None,
) -> Iterator[Entry]:
    """What DeepfakeBench's JSON file lists where the root holds it, else what the dataset's own tree holds.

    Args:
        file, dataset, compression, labels: as those of `scan`.
        tree: the source of the dataset's own tree.

    Raises:
        InputError: as both.
    """
    if holds(root, file):
        yield from scan(root, file, dataset, compression, labels)
        return
    if labels:
        raise InputError(
            f"data.source.labels is for DeepfakeBench's {file}, which {root} does not hold",
            "leave it out",
        )
    try:
        yield from tree(root)
    except InputError as error:
        raise InputError(
            error.message, f"{error.remedy} ({root} does not hold DeepfakeBench's {file}, either)"
        ) from error


def places(root: Path, file: str) -> list[Path]:
    """Where a JSON file may lie."""
    return [root / folder / file for folder in FOLDERS]


def holds(root: Path, file: str) -> bool:
    """Whether the root holds a JSON file."""
    return any(place.is_file() for place in places(root, file))


def _found(root: Path, file: str) -> Path:
    for place in places(root, file):
        if place.is_file():
            return place
    looked = ", ".join(str(place.parent) for place in places(root, file))
    raise InputError(
        f"There is no {file} in {looked}", "set data.root=PATH or data.source.file=PATH"
    )


Listed = dict[str, Any]
"""The videos of a split by name, or by compression and name."""


def grouped(path: Path) -> dict[str, dict[str, dict[str, Listed]]]:
    """What a JSON file lists by dataset, label and split.

    Raises:
        InputError: it is no JSON file, or holds something else.
    """
    return {
        dataset: {
            label: {
                split: checked({} if videos is None else videos, dict, path, dataset, label, split)
                for split, videos in checked(splits, dict, path, dataset, label).items()
            }
            for label, splits in checked(groups, dict, path, dataset).items()
        }
        for dataset, groups in read_json(path).items()
    }


def _dataset(
    root: Path,
    path: Path,
    dataset: str,
    groups: Mapping[str, Mapping[str, Listed]],
    compression: str | None,
    labels: Mapping[str, Label],
    met: dict[str, None],
) -> Iterator[Entry]:
    taken: dict[str, Split] = {}
    alike: dict[str, str] = {}
    again = windows = 0
    kept: list[tuple[Split, Label, str, str, str, list[str]]] = []
    told = _labels(groups, labels, path)
    met |= dict.fromkeys(told)
    for split in PRIORITY:
        for name, splits in groups.items():
            label = told[name]
            domain = (
                forgery(
                    _DOMAINS.get(name.strip().casefold(), name.strip()),
                    f"The label {name!r} in {path}",
                )
                if label
                else REAL
            )
            videos = splits.get(split, {})
            if isinstance(
                videos.get("frames"), list
            ):  # seen in DFDC.json: the frames of one test video in place of the validation videos
                yield Problem(
                    "nameless", f"{path} lists frames without a video's name", "they are left out"
                )
                videos = {key: value for key, value in videos.items() if isinstance(value, dict)}
            for quality, video, own, frames in _videos(videos, compression, path, name, split):
                if own is not ABSENT and own != name:
                    _check_own(own, name, video, label, labels, met, path)
                identity = video_id(dataset, domain, quality, slashed(video))
                if (first := alike.setdefault(identity.strip().casefold(), identity)) != identity:
                    yield Problem(
                        "alike",
                        f"{path} lists {first} and {identity}",
                        "they are read as two videos: correct one if they are the same",
                    )
                if taken.setdefault(identity, split) != split:
                    again += 1
                    continue
                if not frames:
                    raise InputError(
                        f"{path} lists no frames for the video {identity}",
                        "make the JSON file again once they are extracted",
                    )
                windows += sum("\\" in frame for frame in frames)
                kept.append((split, label, domain, quality, identity, frames))
    for name, splits in groups.items():
        for split in (
            split for split, videos in splits.items() if videos and split not in PRIORITY
        ):
            what = (
                f"{path} lists videos of {name} as {split!r}, which is none of "
                f"{', '.join(PRIORITY)}"
            )
            yield Problem("unknown split", what, "they are left out: rename it in the file")
    spelling = Spelling(path)
    if kept:
        home, skipped = _base(
            root, [_path(frames[0]) for *_, frames in kept[:: len(kept) // TRIED + 1]], path
        )
        for split, label, domain, quality, identity, frames in kept:
            for index, frame in enumerate(natural_sort(frames)):
                place = spelling.place(home, "/".join(_path(frame).parts[skipped:]))
                yield Frame(place, label, dataset, domain, identity, index, split, quality)
    yield from spelling.problems()
    if again:
        taken_once = "each is taken once (test before val before train)"
        yield Problem(
            "repeated",
            f"{path.name} lists {again} videos of {dataset} again in another split",
            f"{taken_once}",
        )
    if windows:
        yield Problem(
            "slashes",
            f"{path.name} writes {windows} of the frames of {dataset} with backslashes",
            "they are read as slashes",
        )


def _label(name: str, labels: Mapping[str, Label]) -> Label | None:
    """The label that a label's name tells; None where it tells none, or both."""
    word = name.strip().casefold()
    if name in labels:
        return labels[name]
    if word in SETTLED:
        return SETTLED[word]
    return 1 if word in _DOMAINS else last_word(name)


def _labels(groups: Mapping[str, Any], labels: Mapping[str, Label], path: Path) -> dict[str, Label]:
    """The label of every label name of a dataset.

    Raises:
        InputError: one tells neither real nor fake, or both.
    """
    told: dict[str, Label] = {}
    for name in groups:
        label = _label(name, labels)
        if label is None:
            raise _unsettled(
                f"The label {name!r} in {path} leaves it open whether it is real or fake", name
            )
        told[name] = label
    return told


def _unsettled(message: str, name: str) -> InputError:
    """The refusal of a label, with the words that settle it."""
    real, fake = (overrides.mapping("data.source.labels", {name: label}) for label in (0, 1))
    if real is None:
        return InputError(message, "rename it in the file, so that it ends with _real or _fake")
    return InputError(message, f"say that it is real with {real}, or fake with {fake}")


def _check_own(
    own: object,
    name: str,
    video: str,
    label: Label,
    labels: Mapping[str, Label],
    met: dict[str, None],
    path: Path,
) -> None:
    """Refuses a video whose own label is not that of the group that it is listed in.

    Raises:
        InputError: it is unknown or the opposite.
    """
    told = _label(own, labels) if isinstance(own, str) else None
    if isinstance(own, str):
        met[own] = None
    if told == label:
        return
    what = f"{path} lists {video} under {name}, but with the label {own!r} of its own"
    if told is None and isinstance(own, str):
        raise _unsettled(what, own)
    raise InputError(what, "correct the one that is wrong in the file")


def compressions(
    listed: Listed, path: Path, *entry: str
) -> dict[str, dict[str, tuple[object, list[str]]]]:
    """The own labels and the frames of videos by compression, which is empty where the list has no such level, and by name.

    Args:
        entry: the label and the split.

    Raises:
        InputError: a video without frames, or a value of another kind.
    """
    for name, about in listed.items():
        checked(about, dict, path, *entry, name)
    levelled = not any("frames" in about for about in listed.values())
    levelled &= all(
        isinstance(video, dict) for about in listed.values() for video in about.values()
    )
    found: dict[str, dict[str, tuple[object, list[str]]]] = {}
    for level, videos in (listed if levelled else {"": listed}).items():
        place = (*entry, level) if levelled else entry
        found[level] = {
            name: (about.get("label", ABSENT), member(about, "frames", list, path, *place, name))
            for name, about in checked(videos, dict, path, *place).items()
        }
        for name, (_, frames) in found[level].items():
            for frame in frames:
                checked(frame, str, path, *place, name, "frames")
    return found


def _videos(
    listed: Listed, compression: str | None, path: Path, *entry: str
) -> Iterator[tuple[str, str, object, list[str]]]:
    """(compression, video, its own label, frame paths) of one label and split, with or without the compression level."""
    found = compressions(listed, path, *entry)
    wanted = (
        ""
        if "" in found or not found
        else compression or (next(iter(found)) if len(found) == 1 else None)
    )
    if found and (wanted is None or wanted not in found):
        raise InputError(
            f"{path} holds the compressions {', '.join(found)}, not {wanted}",
            "choose one with data.source.compression=NAME",
        )
    yield from (
        (wanted or "", name, own, frames)
        for name, (own, frames) in found.get(wanted or "", {}).items()
    )


def _path(frame: str) -> PurePosixPath:
    return PurePosixPath(slashed(frame))


def _base(root: Path, frames: Sequence[PurePosixPath], path: Path) -> tuple[Path, int]:
    """Where the JSON's paths hang below the root: a folder, and how many leading parts of each path it replaces, as few as some frame allows."""
    spelling = Spelling(path)
    for skipped in range(max(len(frame.parts) for frame in frames) - 1):
        for folder in IMAGES:
            tried = (
                "/".join(frame.parts[skipped:])
                for frame in frames
                if len(frame.parts) > skipped + 1
            )
            if any(spelling.place(root / folder, name).is_file() for name in tried):
                return root / folder, skipped
    several = f" and {len(frames) - 1} more that were looked for" if len(frames) > 1 else ""
    raise InputError(
        f"{path} lists {frames[0]}{several}, of which none lies under {root}",
        "complete the copy, or set data.root=PATH to the folder of the frames",
    )
