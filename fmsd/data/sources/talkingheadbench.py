"""TalkingHeadBench: portraits that six generators of talking heads, and two newer ones, animate.

Xiong et al., WACV 2026, arXiv 2505.24866.

    ROOT/fake/GENERATOR/{train,val,test}/IMAGE--DRIVING--GENERATOR.mp4
    ROOT/fake/additional_dataset/GENERATOR/*.mp4        only for tests
    ROOT/{true,real}/*_dataset_split.json               names of real videos by split

The real videos are CelebV-HQ's and FaceForensics++'s, which are not part of the dataset. A fake is
made from an image of FFHQ, so no real video is its pair.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.reals import Reals, list_reals
from fmsd.data.sources.text import CORRECT_ENTRY, read_json
from fmsd.data.sources.tree import is_video, list_videos, read_folder, refuse_unreadable
from fmsd.data.spelling import match_names, with_slashes
from fmsd.errors import InputError

SPLITS: tuple[Split, ...] = ("train", "val", "test")

REAL_LISTS = ("true", "real")
"""Folders that may hold the lists of real videos."""

ADDITIONAL = "additional_dataset"
"""The folder of the generators that are only tested."""

WHICH = "the folders of the videos of CelebV-HQ and of original_sequences/youtube/raw of FF++"


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "talkingheadbench",
    additional: bool = True,
    reals: Reals = None,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The animated portraits, and the real videos that the lists name.

    Args:
        additional: whether the generators that are only tested are taken.
        reals: the folders of the real videos.
        frames: name of the folders of extracted frames; detected where there is only one.

    Raises:
        InputError: no fakes, no real videos, or no list of them, or a damaged one.
    """
    fakes = root / "fake"
    if not fakes.is_dir():
        raise InputError(
            f"There is no folder {fakes}", "give the folder TalkingHeadBench as data.root=PATH"
        )
    folders: list[tuple[Path, Split]] = []
    for found in _fake_folders(fakes, additional):
        if isinstance(found, Problem):
            yield found
        else:
            folders.append(found)
    for place, split in folders:
        generator = place.name if place.parent.name == ADDITIONAL else place.parent.name
        domain = forgery_domain(generator, f"The folder {place}")
        videos, problems = list_videos(place, frames)
        yield from problems
        for name, paths in videos.items():
            identity = video_id(dataset, domain, "", name)
            yield Video(*paths, 1, dataset, domain, identity, split)
    videos, problems = list_reals(reals, "TalkingHeadBench", WHICH, frames)
    yield from problems
    if not videos:
        return
    where, split_of = _read_lists(root)
    split_of, problems = match_names(
        split_of, videos, where, Path("data.source.reals"), dict.fromkeys(split_of, REAL)
    )
    yield from problems
    for name, split in split_of.items():
        if name in videos:
            yield Video(*videos[name], 0, dataset, REAL, video_id(dataset, REAL, "", name), split)


def _fake_folders(fakes: Path, additional: bool) -> Iterator[Problem | tuple[Path, Split]]:
    """The folders of fakes, each with its split, and the problems of the folders above them."""
    top = read_folder(fakes)
    yield from top.problems
    for name in top.folders:
        inside = read_folder(fakes / name)
        yield from inside.problems
        if name == ADDITIONAL:
            for one in inside.folders if additional else ():
                yield fakes / name / one, "test"
            continue
        for split in SPLITS:
            if split in inside.folders:
                yield fakes / name / split, split
            else:
                what = f"{fakes / name} has no folder {split}"
                yield Problem("missing", what, "complete the copy", domain=name)


def _read_lists(root: Path) -> tuple[Path, dict[str, Split]]:
    """A list of real videos, for messages, and the split of each video of all lists.

    Raises:
        InputError: there is no list, or one is damaged.
    """
    lists = [path for name in REAL_LISTS for path in sorted((root / name).glob("*.json"))]
    if not lists:
        raise InputError(
            f"{root} holds no list of real videos, true/true_dataset_split.json",
            "complete the copy, or give data.source.reals=[] to read the fakes alone",
        )
    split_of: dict[str, Split] = {}
    for path in lists:
        for name, split in _listed(read_json(path), path):
            if split_of.setdefault(name, split) != split:
                raise InputError(f"{path} lists {name} in two splits", "remove it from one of them")
    return lists[0], split_of


def _listed(node: Any, path: Path, *keys: str) -> Iterator[tuple[str, Split]]:
    """(name without its ending, split) of the videos of a list.

    The names lie below a key train, val or test, with or without a key of their source above or
    below it.

    Args:
        keys: those that lead to the node.

    Raises:
        InputError: names below no split or below two, or a value that is no list of names.
    """
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from _listed(inner, path, *keys, key)
        return
    where = f"{' / '.join(keys)} in {path}"
    if not (isinstance(node, list) and all(isinstance(name, str) for name in node)):
        raise InputError(f"{where} is no list of names", CORRECT_ENTRY)
    splits: list[Split] = [split for split in SPLITS if split in keys]
    if len(splits) != 1:
        raise InputError(
            f"{where} is in {len(splits)} of the splits train, val, test", CORRECT_ENTRY
        )
    for name in node:
        file = PurePosixPath(with_slashes(name))
        yield file.stem if is_video(Path(file)) else file.name, splits[0]
