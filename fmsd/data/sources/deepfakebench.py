"""Datasets in the JSON format of DeepfakeBench (Yan et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2307.01426), which DF40 shares.

    {DATASET: {LABEL: {SPLIT: {VIDEO: {"label": LABEL, "frames": [PATH, ...]}}}}}
    {DATASET: {LABEL: {SPLIT: {COMPRESSION: {VIDEO: {...}}}}}}         FaceForensics++ and its relatives

Its JSON files list many videos in several splits: the test videos of Celeb-DF also stand in train, all of DeepFakeDetection stands in
train, val and test. Here a video has one split: test wins over val, val over train, and what was left out is said.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fmsd.data.clip import readable
from fmsd.data.image import in_order
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

TRIED = 32
"""How many of the videos, evenly spread, are looked for to find where a list's paths hang."""

PRIORITY: tuple[Split, ...] = ("test", "val", "train")


@readable
def scan(
    root: Path, file: str | Sequence[str], dataset: str | None = None, compression: str | None = None, labels: Mapping[str, int] | None = None
) -> Iterator[Entry]:
    """The frames that one or several JSON files list.

    Args:
        file: JSON file or files; a bare name is looked for in `ROOT`, `ROOT/dataset_json` and `ROOT/preprocessing/dataset_json`.
        dataset: the name to give the dataset, instead of the one in the JSON.
        compression: `c23`, `c40` or `raw`, where the JSON holds several.
        labels: 0 (real) or 1 (fake) for label names that do not tell it themselves.

    Raises:
        InputError: a missing or damaged JSON file, an unknown label or compression, or frames that do not lie under the root.
    """
    for name in [file] if isinstance(file, str) else file:
        path = _found(root, name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for title, groups in content.items():
                yield from _dataset(root, path, dataset or title, groups, compression, labels or {})
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a DeepfakeBench JSON file ({type(error).__name__}: {error})", "fetch it again") from error


@readable
def either(
    root: Path,
    file: str,
    tree: Callable[[Path], Iterable[Entry]],
    dataset: str,
    compression: str | None = None,
    labels: Mapping[str, int] | None = None,
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


def _dataset(root: Path, path: Path, dataset: str, groups: Mapping[str, Any], compression: str | None, labels: Mapping[str, int]) -> Iterator[Entry]:
    taken: dict[str, Split] = {}
    again = windows = 0
    kept: list[tuple[Split, Literal[0, 1], str, str, str, list[str]]] = []
    for split in PRIORITY:
        for name, splits in groups.items():
            label = _label(name, labels, path)
            domain = DOMAINS.get(name, name) if label else REAL
            videos = splits.get(split) or {}
            listed = {key: value for key, value in videos.items() if isinstance(value, dict)}
            if len(listed) < len(videos):  # seen in DFDC.json, where the frames of one test video stand in place of the validation videos
                yield Problem("nameless", f"{path} lists frames without a video's name", "they are left out")
            for quality, video, frames in _videos(listed, compression, path):
                identity = video_id(dataset, domain, quality, video.replace("\\", "/"))
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


def _label(name: str, labels: Mapping[str, int], path: Path) -> Literal[0, 1]:
    if name in labels:
        return 1 if labels[name] else 0
    if "real" in name.lower():
        return 0
    if "fake" in name.lower() or name in DOMAINS:
        return 1
    raise InputError(f"The label {name!r} in {path} tells neither real nor fake", f"say it with '+data.source.labels={{{name}: 1}}'")


def _videos(videos: Mapping[str, Any], compression: str | None, path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(compression, video, frame paths) of one label and split, with or without the compression level."""
    levels = [key for key, value in videos.items() if "frames" not in value]
    if not levels:
        yield from (("", name, video["frames"]) for name, video in videos.items())
        return
    wanted = compression or (levels[0] if len(levels) == 1 else None)
    if wanted is None or wanted not in videos:
        raise InputError(f"{path} holds the compressions {', '.join(levels)}, not {wanted}", "choose one with data.source.compression=NAME")
    yield from ((wanted, name, video["frames"]) for name, video in videos[wanted].items())


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
