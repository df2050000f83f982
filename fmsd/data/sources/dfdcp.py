"""Deepfake Detection Challenge, preview, in its official tree.

Dolhansky et al., 2019, arXiv 1910.08854.

    ROOT/dataset.json    or ROOT/dfdc_preview_set/dataset.json
    ROOT/original_videos/643049/643049_A_001.mp4
    ROOT/method_A/...    ROOT/method_B/1260311/1260311_C/1255229_1260311_C_001.mp4

`dataset.json` gives each video's label and split: `{"method_B/1260311/....mp4": {"label": "fake",
"set": "train", ...}}`. Frames may be extracted beside a video, into a folder of its name, or all
into `original_videos/frames/643049_A_001/000.png`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.dfdc import SPLIT_OF_NAME
from fmsd.data.sources.labels import LABEL_WORDS, Label, parse_label
from fmsd.data.sources.text import read_json, require_choice, require_kind, require_member
from fmsd.data.sources.tree import FRAME_FOLDERS, VideoPaths, list_videos, refuse_unreadable
from fmsd.data.spelling import ListedPaths, backslash_problems, to_nfc, with_slashes
from fmsd.errors import InputError

ORIGINAL_FOLDER = "original_videos"
METHOD_FOLDERS = ("method_A", "method_B")


@refuse_unreadable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The original and the manipulated videos; the folder of a method is the domain of its fakes.

    Args:
        frames: name of the folders that hold the extracted frames of all videos; detected where
            there is only one.

    Raises:
        InputError: no `dataset.json`, or one that cannot be read.
    """
    candidates = (root / "dataset.json", root / "dfdc_preview_set" / "dataset.json")
    path = next((place for place in candidates if place.is_file()), None)
    if path is None:
        raise InputError(
            f"There is no dataset.json in {root}",
            "give the folder of the DFDC preview (dfdc_preview_set) as data.root=PATH",
        )
    listed, problems = _read_list(path)
    flat: dict[str, Mapping[str, VideoPaths]] = {}
    for top in dict.fromkeys(video.parts[0] for video in listed):
        flat[top], more = _videos_in_frame_folder(path.parent / top, frames)
        problems += more
    yield from problems
    paths = ListedPaths(path)
    stems = Counter((video.parts[0], video.stem) for video in listed)
    for video, (label, split) in listed.items():
        top = video.parts[0]
        domain, expected = (REAL, 0) if top == ORIGINAL_FOLDER else (top, 1)
        if label != expected:
            listed_as, taken = ("fake", "real") if expected == 0 else ("real", "fake")
            yield Problem(
                "mislabelled",
                f"{path} calls {video} {listed_as}, but its folder is {taken}, which is taken",
                "fetch dataset.json again",
            )
        file = paths.locate(path.parent, str(video))
        present = file if file.is_file() else None
        name = str(video.with_suffix(""))
        beside = file.with_suffix("") if present else paths.locate(path.parent, name)
        _, images = flat[top].get(to_nfc(video.stem), (None, None))
        images = images or (beside if beside.is_dir() else None)
        if images is None and present is None:
            yield Problem(
                "missing",
                f"{path} lists {video}, which {path.parent} does not hold",
                "complete the copy",
                domain=domain,
            )
            continue
        unique = stems[top, video.stem] == 1
        name = video.stem if unique else str(video.with_suffix("").relative_to(top))
        identity = video_id(dataset, domain, "", name)
        yield Video(present, images, expected, dataset, domain, identity, split)
    yield from paths.problems()


def _videos_in_frame_folder(
    folder: Path, frames: str | None
) -> tuple[Mapping[str, VideoPaths], list[Problem]]:
    """The videos in a subfolder of frames, by name in Unicode's composed form.

    It is empty where there is no such subfolder.
    """
    if not (frames or any((folder / name).is_dir() for name in FRAME_FOLDERS)):
        return {}, []
    videos, problems = list_videos(folder, frames)
    return {to_nfc(name): paths for name, paths in videos.items()}, problems


def _read_list(path: Path) -> tuple[dict[PurePosixPath, tuple[Label, Split]], list[Problem]]:
    """The label and split of every video, and the problems of the list."""
    content = read_json(path)
    listed: dict[PurePosixPath, tuple[Label, Split]] = {}
    for name, about in content.items():
        label = _label(name, require_kind(about, dict, path, name).get("label"), path)
        split = require_choice(
            require_member(about, "set", str, path, name), SPLIT_OF_NAME, path, name, "set"
        )
        video = PurePosixPath(with_slashes(name))
        if len(video.parts) < 2 or video.parts[0] not in (ORIGINAL_FOLDER, *METHOD_FOLDERS):
            raise InputError(
                f"{path} lists {name}, which is in none of the folders {ORIGINAL_FOLDER}, "
                f"{' and '.join(METHOD_FOLDERS)}",
                "put the dataset's own dataset.json there",
            )
        if listed.setdefault(video, (label, split)) != (label, split):
            raise InputError(
                f"{path} lists {video} twice, with two labels or splits", "remove the wrong one"
            )
    return listed, backslash_problems(path, sum("\\" in name for name in content))


def _label(name: str, value: object, path: Path) -> Label:
    """The label of a video by the list.

    Raises:
        InputError: the label is none of `LABEL_WORDS`.
    """
    label = parse_label(value, LABEL_WORDS)
    if label is None:
        raise InputError(
            f"{path} does not give each video a label and a set: that of {name} is {value!r}",
            "write real or fake there",
        )
    return label
