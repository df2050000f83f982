"""Datasets in the JSON format of DeepfakeBench (Yan et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2307.01426), which DF40 shares.

    {DATASET: {LABEL: {SPLIT: {VIDEO: {"label": LABEL, "frames": [PATH, ...]}}}}}
    {DATASET: {LABEL: {SPLIT: {COMPRESSION: {VIDEO: {...}}}}}}         FaceForensics++ and its relatives

Its JSON files list many videos in several splits: the test videos of Celeb-DF also stand in train, all of DeepFakeDetection stands in
train, val and test. Here a video has one split: test wins over val, val over train, and what was left out is said.

A label is real or fake by its last word (`CelebDFv2_real`, `DFDC_Fake`) or by the tables below; any other one has to be settled by the user.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data import names
from fmsd.data.clip import readable
from fmsd.data.image import in_order
from fmsd.data.labels import Label, checked, forgery, last_word
from fmsd.errors import InputError
from fmsd.types import REAL, Entry, Frame, Problem, Split, video_id

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

SETTLED: dict[str, Label] = {"whichisreal_real": 0, "whichisreal_fake": 1, "whichfaceisreal_real": 0, "whichfaceisreal_fake": 1}
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
        file: JSON file or files; a bare name is looked for in `ROOT`, `ROOT/dataset_json` and `ROOT/preprocessing/dataset_json`.
        dataset: the name to give the dataset, instead of the one in the JSON.
        compression: `c23`, `c40` or `raw`, where the JSON holds several.
        labels: 0 (real) or 1 (fake) for label names that do not tell it themselves.

    Raises:
        InputError: a missing or damaged JSON file, an unknown or contradictory label, an unknown compression, frames that do not lie under the root,
            or `labels` of which no file holds one.
    """
    given, met = checked(labels or {}, "data.source.labels"), dict[str, None]()
    for one in [file] if isinstance(file, str) else file:
        yield from listed(root, one, dataset, compression, given, met)
    check_met(given, met, file)


def listed(
    root: Path, file: str, dataset: str | int | None, compression: str | int | None, labels: Mapping[str, Label], met: dict[str, None]
) -> Iterator[Entry]:
    """The frames that one JSON file lists; its label names are added to `met`."""
    path = _found(root, file)
    own = None if dataset is None else names.as_name(dataset, "data.source.dataset")
    level = None if compression is None else names.as_name(compression, "data.source.compression")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for title, groups in content.items():
            yield from _dataset(root, path, own or title, groups, level, labels, met)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a DeepfakeBench JSON file ({type(error).__name__}: {error})", "fetch it again") from error


def check_met(labels: Mapping[str, Label], met: Iterable[str], where: object) -> None:
    """Refuses labels given for names that none of the files holds.

    Raises:
        InputError: there is one.
    """
    if unmet := [name for name in labels if name not in met]:
        raise InputError(f"data.source.labels gives {unmet[0]!r}, but the labels of {where} are {', '.join(met)}", "correct it, or leave it out")


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
        raise InputError(f"data.source.labels is for DeepfakeBench's {file}, which {root} does not hold", "leave it out")
    try:
        yield from tree(root)
    except InputError as error:
        raise InputError(error.message, f"{error.remedy} ({root} does not hold DeepfakeBench's {file}, either)") from error


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
    raise InputError(f"There is no {file} in {looked}", "set data.root=PATH or data.source.file=PATH")


def _dataset(
    root: Path, path: Path, dataset: str, groups: Mapping[str, Any], compression: str | None, labels: Mapping[str, Label], met: dict[str, None]
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
            domain = forgery(_DOMAINS.get(name.strip().casefold(), name.strip()), f"The label {name!r} in {path}") if label else REAL
            videos = splits.get(split) or {}
            listed = {key: value for key, value in videos.items() if isinstance(value, dict)}
            if len(listed) < len(videos):  # seen in DFDC.json, where the frames of one test video stand in place of the validation videos
                yield Problem("nameless", f"{path} lists frames without a video's name", "they are left out")
            for quality, video, own, frames in _videos(listed, compression, path):
                if own is not ABSENT and own != name:
                    _check_own(own, name, video, label, labels, met, path)
                identity = video_id(dataset, domain, quality, video.replace("\\", "/"))
                if (first := alike.setdefault(identity.strip().casefold(), identity)) != identity:
                    yield Problem("alike", f"{path} lists {first} and {identity}", "they are read as two videos: correct one if they are the same")
                if taken.setdefault(identity, split) != split:
                    again += 1
                    continue
                if not frames:
                    raise InputError(f"{path} lists no frames for the video {identity}", "make the JSON file again once they are extracted")
                windows += sum("\\" in frame for frame in frames)
                kept.append((split, label, domain, quality, identity, frames))
    if kept:
        home, skipped = _base(root, [_path(frames[0]) for *_, frames in kept[:: len(kept) // TRIED + 1]], path)
        for split, label, domain, quality, identity, frames in kept:
            for index, frame in enumerate(in_order(frames)):
                yield Frame(home.joinpath(*_path(frame).parts[skipped:]), label, dataset, domain, identity, index, split, quality)
    if again:
        taken_once = "each is taken once (test before val before train)"
        yield Problem("repeated", f"{path.name} lists {again} videos of {dataset} again in another split", f"{taken_once}")
    if windows:
        yield Problem("slashes", f"{path.name} writes {windows} of the frames of {dataset} with backslashes", "they are read as slashes")


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
            raise _unsettled(f"The label {name!r} in {path} leaves it open whether it is real or fake", name)
        told[name] = label
    return told


def _unsettled(message: str, name: str) -> InputError:
    """The refusal of a label, with the words that settle it."""
    real, fake = (names.mapping("data.source.labels", {name: label}) for label in (0, 1))
    if real is None:
        return InputError(message, "rename it in the file, so that it ends with _real or _fake")
    return InputError(message, f"say that it is real with {real}, or fake with {fake}")


def _check_own(own: object, name: str, video: str, label: Label, labels: Mapping[str, Label], met: dict[str, None], path: Path) -> None:
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


def _videos(videos: Mapping[str, Any], compression: str | None, path: Path) -> Iterator[tuple[str, str, object, list[str]]]:
    """(compression, video, its own label, frame paths) of one label and split, with or without the compression level."""
    levels = [key for key, value in videos.items() if "frames" not in value]
    quality, held = "", videos
    if levels:
        quality = compression or (levels[0] if len(levels) == 1 else "")
        if quality not in videos:
            raise InputError(f"{path} holds the compressions {', '.join(levels)}, not {compression}", "choose one with data.source.compression=NAME")
        held = videos[quality]
    yield from ((quality, name, video.get("label", ABSENT), video["frames"]) for name, video in held.items())


def _path(frame: str) -> PurePosixPath:
    return PurePosixPath(frame.replace("\\", "/"))


def _base(root: Path, frames: Sequence[PurePosixPath], path: Path) -> tuple[Path, int]:
    """Where the JSON's paths hang below the root: a folder, and how many leading parts of each path it replaces, as few as some frame allows."""
    for skipped in range(max(len(frame.parts) for frame in frames) - 1):
        for folder in IMAGES:
            if any((root / folder).joinpath(*frame.parts[skipped:]).is_file() for frame in frames if len(frame.parts) > skipped + 1):
                return root / folder, skipped
    several = f" and {len(frames) - 1} more that were looked for" if len(frames) > 1 else ""
    raise InputError(
        f"{path} lists {frames[0]}{several}, of which none lies under {root}", "complete the copy, or set data.root=PATH to the folder of the frames"
    )
