"""Datasets whose own lists name every video: the videos on disk, described by the lists."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fmsd.data.frame import REAL, Audio, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.text import read_json, require_member
from fmsd.data.sources.tree import (
    FRAME_FOLDERS,
    SIDE_FOLDERS,
    VIDEO_FOLDER,
    VideoPaths,
    duplicate_video_error,
    one_of_two,
    visible_entries,
    walk_folders,
)
from fmsd.data.spelling import match_names, to_nfc
from fmsd.errors import InputError

Found = dict[str, VideoPaths]
"""Videos on disk by a name, see `find_videos`."""


class Described(NamedTuple):
    """What a list says of a video.

    Args:
        domain: the forgery method of the images, or `real`.
        name: the name of the video within its domain; its last part begins with that of a person
            or source where validation should keep these together, see `group_name`.
        pair, audio: see `Frame`.
    """

    domain: str
    name: str
    split: Split
    pair: str = ""
    audio: Audio = ""


def read_entries(
    path: Path, describe_entry: Callable[[Any, str], Described | None]
) -> dict[str, Described | None]:
    """What a JSON list says of each video, by its path without suffix.

    Args:
        describe_entry: from an entry and its `file`; None for what is left out.

    Raises:
        InputError: the list is damaged, or lists a file twice.
    """
    listed: dict[str, Described | None] = {}
    for number, row in enumerate(read_json(path, list), 1):
        file = require_member(row, "file", str, path, f"entry {number}")
        key = PurePosixPath(file).with_suffix("").as_posix()
        if key in listed:
            raise InputError(f"{path} lists {file} twice", "keep one of its entries")
        listed[key] = describe_entry(row, file)
    return listed


def find_videos(root: Path, frames: str | None = None) -> tuple[Found, list[Problem]]:
    """Every video below a folder, by its path without suffix and without folders of frames.

    `train/a` stands for `train/a.mp4` and for the images in `train/a` and `train/frames/a`.
    An empty folder stands for a video that lacks its frames.

    Args:
        frames: name of the folders that hold extracted frames; None for any.

    Returns:
        The videos, and the problems of the folders.

    Raises:
        InputError: there is no such folder, one cannot be read, or two files or two folders of
            frames are one video by their names.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}", "complete the copy, or correct data.root")
    videos: Found = {}
    problems: list[Problem] = []

    def add(place: Path, key: Path, kind: int) -> None:
        parts = (part for part in key.parts if part not in (*FRAME_FOLDERS, VIDEO_FOLDER))
        name = "/".join(parts)
        paths = list(videos.get(name, (None, None)))
        if (other := paths[kind]) is not None:
            error = duplicate_video_error(other, place)
            if kind:
                error = InputError(error.message, "choose one kind by data.source.frames=NAME")
            raise error
        paths[kind] = place
        videos[name] = (paths[0], paths[1])

    for folder, inside in walk_folders(root, SIDE_FOLDERS):
        problems += inside.problems
        below = folder.relative_to(root)
        for name in inside.videos:
            add(folder / name, (below / name).with_suffix(""), 0)
        holds_frames = inside.images or not visible_entries(folder)
        chosen = frames is None or frames in below.parts[:-1]
        if holds_frames and chosen and folder != root and folder.name not in FRAME_FOLDERS:
            add(folder, below, 1)
    return videos, problems


def by_last_parts(videos: Found, count: int, listed: Collection[str]) -> Found:
    """Videos by the last parts of their paths; those that are not listed by their whole paths.

    Args:
        listed: the names of the list.

    Raises:
        InputError: two videos agree in a listed name, and neither is an empty folder.
    """
    names = set(map(to_nfc, listed))
    found: Found = {}
    for key, paths in videos.items():
        name = "/".join(key.split("/")[-count:])
        if to_nfc(name) not in names:
            found[key] = paths
        else:
            found[name] = one_of_two(found[name], paths) if name in found else paths
    return found


def group_name(person: str) -> str:
    """The name of a person or source at the beginning of names that validation keeps together.

    It is letters and a number, see `fmsd.data.manifest.VIDEO_SOURCE`; other names are hashed.
    """
    if re.fullmatch(r"[A-Za-z]*\d+", person):
        return person
    return f"p{int(hashlib.sha256(person.encode()).hexdigest()[:12], 16)}"


def describe(
    found: Found,
    listed: Mapping[str, Described | None],
    dataset: str,
    where: Path,
    root: Path,
) -> Iterator[Entry]:
    """The listed videos that are on disk, and what is missing and unlisted, in sums.

    Args:
        found: videos on disk by the names of the list.
        listed: what the list says of each; None for what is left out.
        where: the list or the folder of lists, for messages.
    """
    wanted = {name: about for name, about in listed.items() if about is not None}
    domains = {name: about.domain for name, about in wanted.items()}
    described, problems = match_names(wanted, found, where, root, domains)
    missing: dict[str | None, list[Problem]] = {}
    for problem in problems:
        if problem.kind == "missing":
            missing.setdefault(problem.domain, []).append(problem)
        else:
            yield problem
    for domain, (first, *others) in missing.items():
        count = 1 + len(others)
        what = f"{first.what}, and {len(others):,} more videos of {domain}"
        yield first if not others else Problem("missing", what, first.remedy, count, domain)
    left_out = [name for name in found if name not in described and name not in listed]
    if left_out:
        file, images = found[left_out[0]]
        more = f" and {len(left_out) - 1:,} more" if len(left_out) > 1 else ""
        are = "are" if more else "is"
        what = f"{images or file}{more} {are} not in {where} and left out"
        yield Problem("unlisted", what, "remove it", len(left_out) if more else 0)
    for name, (file, images) in found.items():
        if (about := described.get(name)) is not None:
            identity = video_id(dataset, about.domain, "", about.name)
            label = 0 if about.domain == REAL else 1
            yield Video(
                file, images, label, dataset, about.domain, identity, about.split,
                pair=about.pair, audio=about.audio,
            )  # fmt: skip
