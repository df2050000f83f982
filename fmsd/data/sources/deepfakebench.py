"""Datasets in the JSON format of DeepfakeBench, which DF40 shares.

Yan et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2307.01426. The format itself is described
in `fmsd.data.sources.deepfakebench_json`, its labels in `deepfakebench_labels`.

Its JSON files list many videos in several splits: the test videos of Celeb-DF are also in train,
all of DeepFakeDetection is in train, val and test. Here a video has one split: test wins over val,
val over train, and the number of repeated videos is reported.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, pair_id, video_id
from fmsd.data.loading.image import natural_sort
from fmsd.data.sources.deepfakebench_json import (
    NO_LABEL,
    VideoEntries,
    find_json,
    has_json,
    read_groups,
    select_videos,
)
from fmsd.data.sources.deepfakebench_labels import (
    check_labels_used,
    check_own_label,
    fake_domain,
    group_labels,
    partner_name,
)
from fmsd.data.sources.labels import Label, parse_labels
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.data.spelling import ListedPaths, with_slashes
from fmsd.errors import InputError

FRAME_ROOTS = (".", "rgb", "datasets/rgb", "datasets")
"""Folders below the root in which the frames may lie."""


PROBES = 32
"""Videos, evenly spaced, whose frames are looked up to find the folder of a file's paths."""

SPLIT_PRIORITY: tuple[Split, ...] = ("test", "val", "train")
"""The split of a video that is listed in several is the first of these."""


class _ListedVideo(NamedTuple):
    """A video that a JSON file lists.

    Args:
        video: its id.
        frames: paths as the file has them.
        pair: of a fake, the id of the real video, see `Frame`.
    """

    split: Split
    label: Label
    domain: str
    compression: str
    video: str
    frames: list[str]
    pair: str


@refuse_unreadable
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
        dataset: name of the dataset, instead of the one in the JSON.
        compression: `c23`, `c40` or `raw`, where the JSON has several.
        labels: 0 (real) or 1 (fake) for labels whose names are ambiguous.

    Raises:
        InputError: a missing or damaged JSON file, an unknown or contradictory label, an unknown
            compression, frames that do not lie under the root, or `labels` that no file has.
    """
    given = parse_labels(labels or {}, "data.source.labels")
    met: dict[str, None] = {}
    for one in [file] if isinstance(file, str) else file:
        yield from scan_file(root, one, dataset, compression, given, met)
    check_labels_used(given, met, file)


def scan_file(
    root: Path,
    file: str,
    dataset: str | int | None,
    compression: str | int | None,
    labels: Mapping[str, Label],
    met: dict[str, None],
) -> Iterator[Entry]:
    """The frames that one JSON file lists.

    Args:
        labels: as of `scan`, parsed.
        met: the names of the file's labels are added to it.
    """
    path = find_json(root, file)
    name = None if dataset is None else name_overrides.as_name(dataset, "data.source.dataset")
    level = (
        None
        if compression is None
        else name_overrides.as_name(compression, "data.source.compression")
    )
    for title, groups in read_groups(path).items():
        yield from _scan_dataset(root, path, name or title, groups, level, labels, met)


@refuse_unreadable
def scan_json_or_tree(
    root: Path,
    file: str,
    tree: Callable[[Path], Iterable[Entry]],
    dataset: str,
    compression: str | int | None = None,
    labels: Mapping[Any, Any] | None = None,
) -> Iterator[Entry]:
    """The frames of DeepfakeBench's JSON file where the root has it, else of the official tree.

    Args:
        file, dataset, compression, labels: as of `scan`.
        tree: the source of the dataset's official tree.

    Raises:
        InputError: see `scan` and the tree's source.
    """
    if has_json(root, file):
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


def _scan_dataset(
    root: Path,
    path: Path,
    dataset: str,
    groups: Mapping[str, Mapping[str, VideoEntries]],
    compression: str | None,
    labels: Mapping[str, Label],
    met: dict[str, None],
) -> Iterator[Entry]:
    """The frames of one dataset in a JSON file."""
    label_of = group_labels(groups, labels, path)
    met |= dict.fromkeys(label_of)
    videos, repeated = yield from _choose_videos(
        path, dataset, groups, compression, label_of, labels, met
    )
    for name, splits in groups.items():
        for split, listed in splits.items():
            if listed and split not in SPLIT_PRIORITY:
                what = (
                    f"{path} lists videos of {name} as {split!r}, which is none of "
                    f"{', '.join(SPLIT_PRIORITY)}"
                )
                yield Problem("unknown split", what, "they are left out: rename it in the file")
    paths = ListedPaths(path)
    if videos:
        probes = [_frame_path(video.frames[0]) for video in videos[:: len(videos) // PROBES + 1]]
        found = _find_frames(root, probes, path)
        shallowest = min(_depth(root, found, frame) for frame in probes)
        homes: dict[PurePosixPath, tuple[Path, int]] = {}
        for video in videos:
            first = _frame_path(video.frames[0])
            folder = first.parent.parent
            if folder not in homes:
                homes[folder] = _own_home(root, first, found, shallowest, path)
            home, skipped = homes[folder]
            for index, frame in enumerate(natural_sort(video.frames)):
                yield Frame(
                    paths.locate(home, "/".join(_frame_path(frame).parts[skipped:])),
                    video.label,
                    dataset,
                    video.domain,
                    video.video,
                    index,
                    video.split,
                    video.compression,
                    video.pair,
                )
    yield from paths.problems()
    if repeated:
        yield Problem(
            "repeated",
            f"{path.name} lists {repeated} videos of {dataset} again in another split",
            "each is taken once (test before val before train)",
        )
    if windows := sum("\\" in frame for video in videos for frame in video.frames):
        yield Problem(
            "slashes",
            f"{path.name} writes {windows} of the frames of {dataset} with backslashes",
            "they are read as slashes",
        )


def _choose_videos(
    path: Path,
    dataset: str,
    groups: Mapping[str, Mapping[str, VideoEntries]],
    compression: str | None,
    label_of: Mapping[str, Label],
    labels: Mapping[str, Label],
    met: dict[str, None],
) -> Generator[Problem, None, tuple[list[_ListedVideo], int]]:
    """Chooses one split for each video; yields problems.

    Args:
        label_of: label by name of the group.
        labels, met: as of `scan_file`.

    Returns:
        The videos, and how often one is listed again in another split.
    """
    split_of: dict[str, Split] = {}
    alike: dict[str, str] = {}
    kept: list[_ListedVideo] = []
    repeated = 0
    for split in SPLIT_PRIORITY:
        for name, splits in groups.items():
            label = label_of[name]
            domain = fake_domain(name, path) if label else REAL
            videos = splits.get(split, {})
            if isinstance(videos.get("frames"), list):
                # as in DFDC.json: the frames of one test video in place of the validation videos
                yield Problem(
                    "nameless", f"{path} lists frames without a video's name", "they are left out"
                )
                videos = {key: value for key, value in videos.items() if isinstance(value, dict)}
            for quality, video, own_label, frames in select_videos(
                videos, compression, path, name, split
            ):
                if own_label is not NO_LABEL and own_label != name:
                    check_own_label(own_label, name, video, label, labels, met, path)
                identity = video_id(dataset, domain, quality, with_slashes(video))
                if (first := alike.setdefault(identity.strip().casefold(), identity)) != identity:
                    yield Problem(
                        "alike",
                        f"{path} lists {first} and {identity}",
                        "they are read as two videos: correct one if they are the same",
                    )
                if split_of.setdefault(identity, split) != split:
                    repeated += 1
                    continue
                if not frames:
                    raise InputError(
                        f"{path} lists no frames for the video {identity}",
                        "make the JSON file again once they are extracted",
                    )
                pair = (
                    pair_id(dataset, quality, partner_name(name, with_slashes(video)))
                    if label
                    else ""
                )
                kept.append(_ListedVideo(split, label, domain, quality, identity, frames, pair))
    return kept, repeated


def _frame_path(frame: str) -> PurePosixPath:
    """The path of a frame, without leading `..`, which lead from a folder of another machine."""
    return PurePosixPath(re.sub(r"^(\.\.?/+)+", "", with_slashes(frame)))


def _own_home(
    root: Path, frame: PurePosixPath, usual: tuple[Path, int], shallowest: int, path: Path
) -> tuple[Path, int]:
    """The folder and the number of leading parts for the paths of one folder of a JSON file.

    They are the usual ones, unless only others lead to the frame: where files of several machines
    were joined, their paths begin differently.

    Args:
        frame: the first frame of the folder.
        usual: what `_find_frames` returns for frames of the whole file.
        shallowest: the fewest folders above a frame with it: a place with fewer lacks some of
            their names, and may be that of another file.
    """
    home, skipped = usual
    if ListedPaths(path).locate(home, "/".join(frame.parts[skipped:])).is_file():
        return usual
    try:
        own = _find_frames(root, [frame], path)
    except InputError:
        return usual  # the frame is missing: what validates the manifest says so
    return own if _depth(root, own, frame) >= shallowest else usual


def _depth(root: Path, home: tuple[Path, int], frame: PurePosixPath) -> int:
    """The number of parts below the root of the place of a frame."""
    return len(home[0].relative_to(root).parts) + len(frame.parts) - home[1]


def _find_frames(root: Path, frames: Sequence[PurePosixPath], path: Path) -> tuple[Path, int]:
    """The folder that replaces leading parts of the JSON's paths, and their number, the smallest.

    Args:
        frames: paths to look up, of which one must exist.
        path: the JSON file.

    Raises:
        InputError: none of the frames lies under the root.
    """
    paths = ListedPaths(path)
    for skipped in range(max(len(frame.parts) for frame in frames) - 1):
        names = [
            "/".join(frame.parts[skipped:]) for frame in frames if len(frame.parts) > skipped + 1
        ]
        for folder in FRAME_ROOTS:
            if any(paths.locate(root / folder, name).is_file() for name in names):
                return root / folder, skipped
    several = f" and {len(frames) - 1} more that were looked for" if len(frames) > 1 else ""
    raise InputError(
        f"{path} lists {frames[0]}{several}, of which none lies under {root}",
        "complete the copy, or set data.root=PATH to the folder of the frames",
    )
