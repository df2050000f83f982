"""Real videos of datasets that publish their fakes alone: folders that the user names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, SPLITS, Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources.tree import VideoPaths, list_videos, one_of_two, read_folder
from fmsd.errors import InputError
from fmsd.paths import expand_home

Reals = int | Sequence[str | int] | None
"""The value of `data.source.reals`: folders, relative to the working directory or absolute."""


def real_folders(reals: Reals, title: str, which: str) -> list[Path]:
    """The folders of real videos or images.

    Args:
        reals: none for the fakes alone; None is refused.
        title: the dataset, for messages.
        which: the folders to give, for messages: `Celeb-real of Celeb-DF v2`.

    Raises:
        InputError: none are given, or one does not exist.
    """
    if reals is None:
        raise InputError(
            f"{title} is published without real videos or images, and a test needs them",
            f"give {which} as data.source.reals=[PATH], or data.source.reals=[] to read the fakes "
            "alone",
        )
    names = name_overrides.as_names(reals, "data.source.reals")
    folders = [expand_home(name).absolute() for name in names]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"There is no folder {folder} with real videos or images of {title}",
                "correct data.source.reals=[PATH]",
            )
    return folders


def list_reals(
    reals: Reals, title: str, which: str, frames: str | None
) -> tuple[dict[str, VideoPaths], list[Problem]]:
    """The real videos by name, and the problems of their folders.

    Args:
        reals, title, which: as of `real_folders`.
        frames: name of the folders of extracted frames; detected where there is only one.

    Raises:
        InputError: see `real_folders`, a folder holds no videos, or two videos have one name and
            neither is an empty folder.
    """
    videos: dict[str, VideoPaths] = {}
    problems: list[Problem] = []
    for folder in real_folders(reals, title, which):
        found, more = list_videos(folder, frames)
        if not any(
            file or (images and read_folder(images).images) for file, images in found.values()
        ):
            raise InputError(
                f"The folder {folder} of data.source.reals holds no videos and no frames",
                f"give {which}: the folder in which the videos themselves lie",
            )
        problems += more
        for name, paths in found.items():
            if videos.setdefault(name, paths) != paths:
                videos[name] = one_of_two(videos[name], paths)
    return videos, problems


def scan_fakes_and_reals(
    folders: Mapping[str, Path],
    dataset: str,
    compression: str,
    original: Callable[[str, str], str | None],
    split_of: Callable[[str], Split],
    reals: tuple[dict[str, VideoPaths], list[Problem]],
    frames: str | None,
) -> Iterator[Entry]:
    """The fakes of a folder per domain, and the real videos that they were made from.

    Args:
        folders: the folder of each domain.
        compression: of the fakes; the real ones have none.
        original: the name of the real video by that of a fake and its domain.
        split_of: the split by the name of a real video.
        reals: what `list_reals` returns.
    """
    videos, problems = reals
    yield from problems
    lacking: set[str] = set()
    unpaired: list[str] = []
    for domain, folder in folders.items():
        fakes, problems = list_videos(folder, frames)
        yield from problems
        for name, paths in fakes.items():
            real = original(name, domain)
            if real is None:
                unpaired.append(name)
            elif real not in videos:
                lacking.add(real)
            yield Video(
                *paths,
                1,
                dataset,
                domain,
                video_id(dataset, domain, compression, name),
                split_of(real or name),
                compression,
                pair_id(dataset, "", real),
            )
    if unpaired:
        yield Problem(
            "no real video",
            f"The names of {len(unpaired)} fakes of {dataset} do not tell what real video they "
            f"were made from, such as {unpaired[0]}",
            "they have no pair: correct their names",
        )
    if lacking and videos:
        yield Problem(
            "missing",
            f"The folders of data.source.reals lack {len(lacking)} videos that fakes of {dataset} "
            f"were made from, such as {min(lacking)}",
            "add their folder",
            domain=REAL,
        )
    for name, paths in videos.items():
        yield Video(*paths, 0, dataset, REAL, video_id(dataset, REAL, "", name), split_of(name))


def check_split(split: str, others: Sequence[str] = ()) -> None:
    """Rejects a `data.source.split` that is no split.

    Args:
        others: further values that are allowed.

    Raises:
        InputError: it is none.
    """
    if split not in (*SPLITS, *others):
        raise InputError(
            f"data.source.split={split} is no split", f"choose from {', '.join((*SPLITS, *others))}"
        )
