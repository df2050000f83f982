"""Deepfake Detection Challenge, preview (Dolhansky et al., 2019, arXiv 1910.08854) in its official tree.

    ROOT/dataset.json                                                 or ROOT/dfdc_preview_set/dataset.json
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
from fmsd.data.sources.dfdc import SPLITS
from fmsd.data.sources.labels import WORDS, Label, stated
from fmsd.data.sources.text import checked, choice, member, read_json
from fmsd.data.sources.tree import FRAMES, Clip, clips, readable
from fmsd.data.spelling import Spelling, backslashes, composed, slashed
from fmsd.errors import InputError

ORIGINALS = "original_videos"
METHODS = ("method_A", "method_B")


@readable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The original videos and those of both methods, whose folders name the forgeries.

    Args:
        frames: name of the folders that hold the extracted frames of all videos; found by itself
            where there is only one.

    Raises:
        InputError: no `dataset.json`, or one that cannot be read.
    """
    path = next(
        (
            place
            for place in (root / "dataset.json", root / "dfdc_preview_set" / "dataset.json")
            if place.is_file()
        ),
        None,
    )
    if path is None:
        raise InputError(
            f"There is no dataset.json in {root}",
            "give the folder of the DFDC preview (dfdc_preview_set) as data.root=PATH",
        )
    listed, problems = _listed(path)
    flat: dict[str, Mapping[str, Clip]] = {}
    for top in dict.fromkeys(video.parts[0] for video in listed):
        flat[top], more = _flat(path.parent / top, frames)
        problems += more
    yield from problems
    spelling = Spelling(path)
    stems = Counter((video.parts[0], video.stem) for video in listed)
    for video, (label, split) in listed.items():
        top = video.parts[0]
        domain, expected = (REAL, 0) if top == ORIGINALS else (top, 1)
        if label != expected:
            said, meant = ("fake", "real") if expected == 0 else ("real", "fake")
            yield Problem(
                "mislabelled",
                f"{path} calls {video} {said}, but its folder says {meant}, which is taken",
                "fetch dataset.json again",
            )
        file = spelling.place(path.parent, str(video))
        beside = (
            file.with_suffix("")
            if file.is_file()
            else spelling.place(path.parent, str(video.with_suffix("")))
        )
        together = flat[top].get(composed(video.stem))
        images = (together[1] if together else None) or (beside if beside.is_dir() else None)
        if images is None and not file.is_file():
            yield Problem(
                "missing",
                f"{path} lists {video}, which {path.parent} does not hold",
                "complete the copy",
            )
            continue
        name = (
            video.stem
            if stems[top, video.stem] == 1
            else str(video.with_suffix("").relative_to(top))
        )
        identity = video_id(dataset, domain, "", name)
        yield Video(
            file if file.is_file() else None, images, expected, dataset, domain, identity, split
        )
    yield from spelling.problems()


def _flat(folder: Path, frames: str | None) -> tuple[Mapping[str, Clip], list[Problem]]:
    """The videos whose frames lie together in a folder of frames, by names in composed form; none where there is no such folder."""
    if not (frames or any((folder / name).is_dir() for name in FRAMES)):
        return {}, []
    held, problems = clips(folder, frames)
    return {composed(name): clip for name, clip in held.items()}, problems


def _listed(path: Path) -> tuple[dict[PurePosixPath, tuple[Label, Split]], list[Problem]]:
    """The label and split of every video, and what is wrong with the list."""
    content = read_json(path)
    listed: dict[PurePosixPath, tuple[Label, Split]] = {}
    for name, about in content.items():
        label = _label(name, checked(about, dict, path, name).get("label"), path)
        split = choice(member(about, "set", str, path, name), SPLITS, path, name, "set")
        video = PurePosixPath(slashed(name))
        if len(video.parts) < 2 or video.parts[0] not in (ORIGINALS, *METHODS):
            raise InputError(
                f"{path} lists {name}, which is in none of the folders {ORIGINALS}, "
                f"{' and '.join(METHODS)}",
                "put the dataset's own dataset.json there",
            )
        if listed.setdefault(video, (label, split)) != (label, split):
            raise InputError(
                f"{path} lists {video} twice, with two labels or splits", "remove the wrong one"
            )
    return listed, backslashes(path, sum("\\" in name for name in content))


def _label(name: str, value: object, path: Path) -> Label:
    """The label that the list states for a video.

    Raises:
        InputError: an unknown one.
    """
    label = stated(value, WORDS)
    if label is None:
        raise InputError(
            f"{path} does not give each video a label and a set: that of {name} is {value!r}",
            "write real or fake there",
        )
    return label
