"""Celeb-DF v1, v2 and Celeb-DF++ in their official trees.

Li et al., CVPR 2020, arXiv 1909.12962 (v1 and v2); Li et al., 2025, arXiv 2507.18015 (++).

    ROOT/List_of_testing_videos.txt
    ROOT/Celeb-real/id0_0000.mp4           ROOT/YouTube-real/00000.mp4
    ROOT/Celeb-synthesis/id0_id1_0000.mp4                              v1, v2
    ROOT/Celeb-synthesis/FaceSwap/BlendFace/id0_id1_0000.mp4           ++: SCENARIO/METHOD

Frames may be extracted beside the videos: `Celeb-real/frames/id0_0000/000.png`. The list names the
test videos, `1 Celeb-real/id1_0007.mp4`, with 1 for real and 0 for fake; all other videos are for
training.

`id0_id1_0000` of v1 and v2 is made from id0_0000, with the face of id1. Whether the names of the
methods that ++ adds mean the same, its authors do not say.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fmsd.data.frame import REAL, Entry, Problem, Video, pair_id, video_id
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.partner_names import target_clip
from fmsd.data.sources.text import read_text
from fmsd.data.sources.tree import VideoPaths, list_videos, read_folder, refuse_unreadable
from fmsd.data.spelling import backslash_problems, match_names, with_slashes
from fmsd.data.split_lists import LISTS, Names
from fmsd.errors import InputError
from fmsd.names import name_fault

log = logging.getLogger(__name__)

TEST_LIST = "List_of_testing_videos.txt"
"""The list of test videos below the root."""

REAL_FOLDERS = ("Celeb-real", "YouTube-real")
FAKE_FOLDER = "Celeb-synthesis"
SCENARIOS = ("FaceSwap", "FaceReenact", "TalkingFace")
METHOD_ALIASES = {"Celeb-DF-v2": "Celeb-DF"}
"""Methods of Celeb-DF++ by the name of their folder, where the authors' README has another."""
PAIRED = (FAKE_FOLDER, *METHOD_ALIASES.values())
"""The forgeries of v1 and v2, whose names give the real video that a fake was made from."""


@refuse_unreadable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of Celeb-DF v1 or v2, whose one forgery is `Celeb-synthesis`.

    Args:
        frames: name of the folders that hold extracted frames; detected where there is only one.

    Raises:
        InputError: a missing folder or test list, a list that cannot be read, or a copy of
            Celeb-DF++.
    """
    if any((root / FAKE_FOLDER / scenario).is_dir() for scenario in SCENARIOS):
        raise InputError(
            f"{root / FAKE_FOLDER} holds a folder per forgery, which is the tree of Celeb-DF++",
            "read it with data=celebdf_pp",
        )
    yield from _videos(root, dataset, {FAKE_FOLDER: FAKE_FOLDER}, frames)


@refuse_unreadable
def scan_pp(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos of Celeb-DF++; the folder of a method is a domain (`BlendFace`, `SadTalker`, ...).

    Args:
        frames: as of `scan`.

    Raises:
        InputError: a missing folder or test list, a list that cannot be read, or no method.
    """
    methods: dict[str, str] = {}
    for scenario in SCENARIOS:
        if (root / FAKE_FOLDER / scenario).is_dir():
            inside = read_folder(root / FAKE_FOLDER / scenario)
            yield from inside.problems
            for name in inside.folders:
                place = f"{FAKE_FOLDER}/{scenario}/{name}"
                methods[place] = forgery_domain(
                    METHOD_ALIASES.get(name, name), f"The folder {root / place}"
                )
    if not methods:
        raise InputError(
            f"{root / FAKE_FOLDER} holds no method below {', '.join(SCENARIOS)}",
            "complete the copy of Celeb-DF++, correct data.root, or read an older version with "
            "data=celebdf_v2 or data=celebdf_v1",
        )
    yield from _videos(root, dataset, methods, frames)


def _videos(
    root: Path, dataset: str, forgeries: Mapping[str, str], frames: str | None
) -> Iterator[Entry]:
    """The videos of the real folders and of the folders of forgeries.

    Args:
        forgeries: the domain of each folder of fakes.
    """
    domains = dict.fromkeys(REAL_FOLDERS, REAL) | dict(forgeries)
    listed, problems = read_test_list(root)
    official = LISTS.get(dataset)
    if official is not None and not official.identifies(names := listed_names(listed)):
        counts = [f"{len(names['test'][kind])} {kind}" for kind in ("real", "fake")]
        log.warning(
            "%s is not the official test list of %s: it has %s videos; the official one has %s.",
            root / TEST_LIST,
            official.title,
            " and ".join(counts),
            " and ".join(f"{part.count} {kind}" for kind, part in official.parts["test"].items()),
        )
    videos: dict[str, dict[str, VideoPaths]] = {}
    for folder in domains:
        videos[folder], more = list_videos(root / folder, frames)
        problems += more
    both = videos[REAL_FOLDERS[0]].keys() & videos[REAL_FOLDERS[1]].keys()
    for folder in dict.fromkeys((*domains, *listed)):
        labels = listed.get(folder, {})
        known = dict.fromkeys(labels, domains[folder]) if folder in domains else {}
        listed[folder], more = match_names(
            labels, videos.get(folder, {}), TEST_LIST, root / folder, known
        )
        problems += more
    yield from problems
    for folder, domain in domains.items():
        label = 0 if domain == REAL else 1
        labels = listed[folder]
        for name, (file, images) in videos[folder].items():
            if labels.get(name, label) != label:
                yield mislabelled_problem(name, folder, label)
            key = f"{folder}/{name}" if domain == REAL and name in both else name
            original = target_clip(name) if domain in PAIRED else None
            if original in both:
                original = f"{REAL_FOLDERS[0]}/{original}"
            yield Video(
                file,
                images,
                label,
                dataset,
                domain,
                video_id(dataset, domain, "", key),
                "test" if name in labels else "train",
                pair=pair_id(dataset, "", original),
            )


def mislabelled_problem(name: str, folder: str, label: int) -> Problem:
    """The problem of a video whose label in the list differs from that of its folder.

    Args:
        label: the folder's label, which is taken.
    """
    listed, taken = ("fake", "real") if label == 0 else ("real", "fake")
    return Problem(
        "mislabelled",
        f"{TEST_LIST} calls {name} {listed}, but it is in {folder} and taken for {taken}",
        "fetch the list again",
    )


def read_test_list(root: Path) -> tuple[dict[str, dict[str, int]], list[Problem]]:
    """The labels (1 = fake) of the test videos by folder and name, and the problems of the list.

    Raises:
        InputError: there is no list, or a line of it cannot be read.
    """
    path = root / TEST_LIST
    if not path.is_file():
        raise InputError(
            f"There is no test list {path}",
            "it comes with the dataset: copy it there, or correct data.root",
        )
    label_of: dict[str, dict[str, int]] = {}
    slashes = 0
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        real, _, name = line.strip().partition(" ")
        slashes += "\\" in name
        video = PurePosixPath(with_slashes(name.strip()))
        if real not in ("0", "1") or len(video.parts) < 2:
            raise InputError(
                f"Line {number} of {path} is not like '1 Celeb-real/id1_0007.mp4', but "
                f"{line.strip()[:80]!r}",
                "correct that line",
            )
        if fault := name_fault(str(video), nested=True):
            raise InputError(
                f"The video {str(video)[:80]!r} in line {number} of {path} {fault[0]}", fault[1]
            )
        label = 1 - int(real)
        if label_of.setdefault(str(video.parent), {}).setdefault(video.stem, label) != label:
            raise InputError(
                f"{path} lists {video} twice, as real and as fake", "remove the wrong line"
            )
    return label_of, backslash_problems(path, slashes)


def listed_names(listed: Mapping[str, Mapping[str, int]]) -> Names:
    """The names of the test videos by kind, from what `read_test_list` returns."""
    labels = [(name, label) for videos in listed.values() for name, label in videos.items()]
    real, fake = (frozenset(name for name, label in labels if label == kind) for kind in (0, 1))
    return {"test": {"real": real, "fake": fake}}
