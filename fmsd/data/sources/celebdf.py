"""Celeb-DF v1 and v2 (Li et al., CVPR 2020, arXiv 1909.12962) and Celeb-DF++ (Li et al., 2025, arXiv 2507.18015) in their official trees.

    ROOT/List_of_testing_videos.txt
    ROOT/Celeb-real/id0_0000.mp4           ROOT/YouTube-real/00000.mp4
    ROOT/Celeb-synthesis/id0_id1_0000.mp4                              v1, v2
    ROOT/Celeb-synthesis/FaceSwap/BlendFace/id0_id1_0000.mp4           ++: SCENARIO/METHOD

Frames may be extracted beside the videos: `Celeb-real/frames/id0_0000/000.png`. The list names the
test videos, `1 Celeb-real/id1_0007.mp4`, with 1 for real and 0 for fake; all other videos are for
training.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fmsd.data.frame import REAL, Entry, Problem, Video, video_id
from fmsd.data.sources.labels import forgery
from fmsd.data.sources.text import read_text
from fmsd.data.sources.tree import Clip, clips, contents, readable
from fmsd.data.spelling import backslashes, matched, slashed
from fmsd.errors import InputError

LIST = "List_of_testing_videos.txt"
REALS = ("Celeb-real", "YouTube-real")
FAKES = "Celeb-synthesis"
SCENARIOS = ("FaceSwap", "FaceReenact", "TalkingFace")
ALIASES = {"Celeb-DF-v2": "Celeb-DF"}
"""What the authors' scripts call a method, and what their README calls it."""


@readable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of Celeb-DF v1 or v2, whose one forgery is `Celeb-synthesis`.

    Args:
        frames: name of the folders that hold extracted frames; found by itself where there is only
            one.

    Raises:
        InputError: a missing folder or test list, a list that cannot be read, or a copy of
            Celeb-DF++.
    """
    if any((root / FAKES / scenario).is_dir() for scenario in SCENARIOS):
        raise InputError(
            f"{root / FAKES} holds a folder per forgery, which is the tree of Celeb-DF++",
            "read it with data=celebdf_pp",
        )
    yield from _videos(root, dataset, {FAKES: FAKES}, frames)


@readable
def scan_pp(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of Celeb-DF++, whose forgeries are the folders of its methods: `BlendFace`, `LivePortrait`, `SadTalker`, ...

    Args:
        frames: as that of `scan`.

    Raises:
        InputError: a missing folder or test list, a list that cannot be read, or no method.
    """
    methods: dict[str, str] = {}
    for scenario in SCENARIOS:
        if (root / FAKES / scenario).is_dir():
            held = contents(root / FAKES / scenario)
            yield from held.problems
            for name in held.folders:
                place = f"{FAKES}/{scenario}/{name}"
                methods[place] = forgery(ALIASES.get(name, name), f"The folder {root / place}")
    if not methods:
        raise InputError(
            f"{root / FAKES} holds no method below {', '.join(SCENARIOS)}",
            "complete the copy of Celeb-DF++, correct data.root, or read an older version with "
            "data=celebdf_v2 or data=celebdf_v1",
        )
    yield from _videos(root, dataset, methods, frames)


def _videos(
    root: Path, dataset: str, forgeries: Mapping[str, str], frames: str | None
) -> Iterator[Entry]:
    """The videos of the real folders and of those of forgeries, whose domains are given."""
    domains = dict.fromkeys(REALS, REAL) | dict(forgeries)
    listed, problems = tested(root)
    held: dict[str, dict[str, Clip]] = {}
    for folder in domains:
        held[folder], more = clips(root / folder, frames)
        problems += more
    both = held[REALS[0]].keys() & held[REALS[1]].keys()
    for folder in dict.fromkeys((*domains, *listed)):
        listed[folder], more = matched(
            listed.get(folder, {}), held.get(folder, {}), LIST, root / folder
        )
        problems += more
    yield from problems
    for folder, domain in domains.items():
        label = 0 if domain == REAL else 1
        labels = listed[folder]
        for name, (file, images) in held[folder].items():
            if labels.get(name, label) != label:
                yield mislabelled(name, folder, label)
            own = f"{folder}/{name}" if domain == REAL and name in both else name
            yield Video(
                file,
                images,
                label,
                dataset,
                domain,
                video_id(dataset, domain, "", own),
                "test" if name in labels else "train",
            )


def mislabelled(name: str, folder: str, label: int) -> Problem:
    """What to say of a video that the list gives another label than its folder.

    Args:
        label: the folder's, which is taken.
    """
    said, meant = ("fake", "real") if label == 0 else ("real", "fake")
    return Problem(
        "mislabelled",
        f"{LIST} calls {name} {said}, but it is in {folder} and taken for {meant}",
        "fetch the list again",
    )


def tested(root: Path) -> tuple[dict[str, dict[str, int]], list[Problem]]:
    """The labels (1 = fake) of the test videos by folder and name, and what is wrong with their list.

    Raises:
        InputError: there is no list, or a line of it cannot be read.
    """
    path = root / LIST
    if not path.is_file():
        raise InputError(
            f"There is no test list {path}",
            "it comes with the dataset: copy it there, or correct data.root",
        )
    found: dict[str, dict[str, int]] = {}
    slashes = 0
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        real, _, name = line.strip().partition(" ")
        slashes += "\\" in name
        video = PurePosixPath(slashed(name.strip()))
        if real not in ("0", "1") or len(video.parts) < 2:
            raise InputError(
                f"Line {number} of {path} is not like '1 Celeb-real/id1_0007.mp4', but "
                f"{line.strip()[:80]!r}",
                "correct that line",
            )
        label = 1 - int(real)
        if found.setdefault(str(video.parent), {}).setdefault(video.stem, label) != label:
            raise InputError(
                f"{path} lists {video} twice, as real and as fake", "remove the wrong line"
            )
    return found, backslashes(path, slashes)
