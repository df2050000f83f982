"""DF40: forty forgery methods, in the official trees or by DF40's JSON files.

Yan et al., NeurIPS 2024 Datasets and Benchmarks, arXiv 2406.13495.

    ROOT/DF40/METHOD/{ff,cdf}/frames/VIDEO/*.png            test
    ROOT/DF40/METHOD/{fake,real}/...                        test; own real images
    ROOT/DF40_train/METHOD/frames/VIDEO/*.png               training, from FaceForensics++
    ROOT/FaceForensics++/..., ROOT/Celeb-DF-v2/...          the real videos of `ff` and `cdf`
    ROOT/dataset_json/METHOD_{ff,cdf}.json, METHOD.json     the lists

Entire face synthesis has no folder `frames`, and lies in Celeb-DF's folders below `cdf`. The domain
of a fake is its method. An origin is where a method's real images come from: `ff`, `cdf`, or its
`own`. A folder of images is a video; images that lie directly in `fake`, `real`, `ff`, `cdf` or
`inversions` are a video each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, Video, video_id
from fmsd.data.sources import celebdf, ffpp
from fmsd.data.sources.df40_lists import scan_lists
from fmsd.data.sources.df40_methods import METHODS, choose_methods
from fmsd.data.sources.labels import parse_labels
from fmsd.data.sources.tree import (
    FRAME_FOLDERS,
    SIDE_FOLDERS,
    VIDEO_FOLDER,
    duplicate_video_error,
    frameless_problem,
    list_videos,
    read_folder,
    refuse_unreadable,
    walk_folders,
)
from fmsd.data.spelling import match_names, missing_problems
from fmsd.errors import InputError
from fmsd.paths import expand_home

TREE_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("DF40_train", "train"),
    "test": ("DF40", "DF40_test", "test"),
}
"""Folders below the root in which each tree may lie."""

ORIGINS = {"ff": "ff", "cdf": "cdf", "fake": "own", "real": "own"}
"""The origin of the videos below each folder."""

LEVEL_FOLDERS = frozenset({*ORIGINS, *FRAME_FOLDERS, VIDEO_FOLDER, "inversions"})
"""Folders of videos, or of images that are a video each."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "df40",
    families: int | Sequence[str | int] = ("FS", "FR", "EFS", "FE"),
    methods: int | Sequence[str | int] | None = None,
    origins: int | Sequence[str | int] = ("ff", "cdf", "own"),
    lists: bool = False,
    ff: str | None = None,
    cdf: str | None = None,
    splits: str | None = None,
    labels: Mapping[Any, Any] | None = None,
) -> Iterator[Entry]:
    """The fakes of the chosen methods, and the real videos of their origins.

    Args:
        families: families whose methods are taken: FS, FR, EFS, FE.
        methods: methods to take among them; None for all.
        origins: origins to take: `ff`, `cdf`, `own`.
        lists: read DF40's JSON files instead of its folders.
        ff: FaceForensics++ as DF40 distributes it; None for `ROOT/FaceForensics++`.
        cdf: Celeb-DF v2 as DF40 distributes it; None for `ROOT/Celeb-DF-v2`.
        splits: as of FaceForensics++.
        labels: as of DeepfakeBench's JSON files, for DF40's.

    Raises:
        InputError: an unknown family, method or origin, a missing folder or list, an unknown label
            in a list, or no real videos of an origin.
    """
    requested = None if methods is None else name_overrides.as_names(methods, "data.source.methods")
    chosen = choose_methods(name_overrides.as_names(families, "data.source.families"), requested)
    origins = name_overrides.as_names(origins, "data.source.origins")
    if unknown := [origin for origin in origins if origin not in ORIGINS.values()]:
        raise InputError(
            f"DF40 has no origin {', '.join(unknown)}",
            "choose from ff, cdf, own in data.source.origins",
        )
    given = parse_labels(labels or {}, "data.source.labels")
    if lists:
        yield from scan_lists(root, dataset, chosen, origins, given)
        return
    if given:
        raise InputError(
            "data.source.labels is for DF40's JSON files, and its folders are read",
            "leave it out, or give data.source.lists=true",
        )
    taken: set[tuple[str, Split]] = set()
    for origin, entry in _scan_trees(root, chosen, origins, dataset):
        if not isinstance(entry, Problem):
            taken.add((origin, entry.split))
        yield entry
    if kept := {split for origin, split in taken if origin == "ff"}:
        # the validation videos of FaceForensics++ have no fakes beside them
        place = _real_folder(root, "FaceForensics++", ff, "ff")
        for entry in ffpp.scan(place, dataset, "c23", manipulations=(), splits=splits):
            if isinstance(entry, Problem) or entry.split in kept:
                yield entry
    if any(origin == "cdf" for origin, _ in taken):
        yield from _celebdf_reals(_real_folder(root, "Celeb-DF-v2", cdf, "cdf"), dataset)


def _find_trees(root: Path) -> list[tuple[Split, Path]]:
    """The trees below the root.

    Raises:
        InputError: the root holds none of `TREE_FOLDERS`.
    """
    trees: list[tuple[Split, Path]] = [
        (split, root / name)
        for split, names in TREE_FOLDERS.items()
        for name in names
        if (root / name).is_dir()
    ]
    if not trees:
        raise InputError(
            f"{root} holds neither DF40 nor DF40_train",
            "give the folder that holds them as data.root=PATH",
        )
    return trees


def _real_folder(root: Path, name: str, given: str | None, origin: str) -> Path:
    """The folder of an origin's real videos.

    Raises:
        InputError: the folder does not exist.
    """
    place = root / name if given is None else expand_home(given).absolute()
    if not place.is_dir():
        raise InputError(
            f"There is no folder {place} with the real videos of {origin}",
            f"set data.source.{origin}=PATH, or leave it out of origins",
        )
    return place


def _scan_trees(
    root: Path, chosen: Sequence[str], origins: Sequence[str], dataset: str
) -> Iterator[tuple[str, Entry]]:
    """(origin, entry) of the chosen methods in all trees, and the problems of the trees."""
    present: set[str] = set()
    for split, place in _find_trees(root):
        inside = read_folder(place)
        yield from (("", problem) for problem in inside.problems)
        for folder in (place / name for name in inside.folders):
            method = METHODS.get(folder.name.lower())
            if method is None:
                what = f"{folder} is none of DF40's methods and left out"
                yield "", Problem("unlisted", what, "remove it")
                continue
            if method not in chosen:
                continue
            own_labels: set[int] = set()
            for origin, entry in _scan_method(folder, method, dataset, split):
                if isinstance(entry, Problem):
                    yield "", entry
                elif origin in origins:
                    present.add(method)
                    if origin == "own":
                        own_labels.add(entry.label)
                    yield origin, entry
            if own_labels == {1}:
                what = f"{folder} has no real images beside the fake ones"
                yield "", Problem("missing", what, "complete the copy", domain=REAL)
    missing = missing_problems(
        chosen, present, "DF40's table of methods", root, {name: name for name in chosen}
    )
    yield from (("", problem) for problem in missing)


def _scan_method(
    folder: Path, method: str, dataset: str, split: Split
) -> Iterator[tuple[str, Entry]]:
    """(origin, entry) below the folder of a method; a video's file and frames are one entry."""
    videos: dict[str, tuple[str, Video]] = {}
    for place, (subfolders, images, files, problems) in walk_folders(folder, SIDE_FOLDERS):
        parts = place.relative_to(folder).parts
        yield from (("", problem) for problem in problems)
        if not images and not files:
            if not subfolders:
                yield "", frameless_problem(place)
            continue
        single = not parts or parts[-1].lower() in LEVEL_FOLDERS  # each image is a video
        if problem := _misplaced(place, parts if single else parts[:-1], parts, split):
            yield "", problem
            continue
        for name in images if single else ():
            origin, label, domain, identity = _describe((*parts, name), method, dataset, split)
            yield origin, Frame(Path(place, name), label, dataset, domain, identity, 0, split)
        listed: list[tuple[tuple[str, ...], dict[str, Path]]] = [
            ((*parts, Path(name).stem), {"file": Path(place, name)}) for name in files
        ]
        if images and not single:
            listed.append((parts, {"images": place}))
        for key, paths in listed:
            origin, label, domain, identity = _describe(key, method, dataset, split)
            blank = Video(None, None, label, dataset, domain, identity, split)
            _, video = videos.get(identity, (origin, blank))
            for name, path in paths.items():
                if other := getattr(video, name):
                    raise duplicate_video_error(other, path)
            videos[identity] = (origin, replace(video, **paths))
    yield from videos.values()


def _misplaced(
    place: Path, levels: Sequence[str], parts: Sequence[str], split: Split
) -> Problem | None:
    """The problem of a folder that lies in none of the folders of origins, or in several.

    Args:
        levels: the folders that lead to its videos, below that of the method.
        parts: the folders that lead to it.
    """
    if _origin(parts, split) is None:
        what = f"{place} lies in none of ff, cdf, fake, real and is left out"
    elif len(named := {part.lower() for part in levels} & ORIGINS.keys()) > 1:
        what = f"{place} lies in {' and in '.join(sorted(named))} and is left out"
    else:
        return None
    return Problem("misplaced", what, "move it to the one it belongs to")


def _origin(parts: Sequence[str], split: Split) -> str | None:
    """The origin by the folders of a path; that of the training tree is `ff` by default."""
    named = [ORIGINS[part.lower()] for part in parts if part.lower() in ORIGINS]
    return named[0] if named else "ff" if split == "train" else None


def _describe(
    parts: Sequence[str], method: str, dataset: str, split: Split
) -> tuple[str, Literal[0, 1], str, str]:
    """Origin, label, domain and id of a video by the folders of its path.

    The id of an image of the method's own has the split, as each tree numbers these anew.
    """
    folders = parts[:-1]
    origin = cast(str, _origin(folders, split))
    label = 0 if any(part.lower() == "real" for part in folders) else 1
    below = [part for part in folders if part.lower() not in LEVEL_FOLDERS]
    where = split if origin == "own" else origin
    name = "/".join((*(() if label else (method,)), where, *below, parts[-1]))
    domain = method if label else REAL
    return origin, label, domain, video_id(dataset, domain, "", name)


def _celebdf_reals(place: Path, dataset: str) -> Iterator[Entry]:
    """The real videos among the test videos of Celeb-DF v2."""
    listed, problems = celebdf.read_test_list(place)
    yield from problems
    for folder in celebdf.REAL_FOLDERS:
        videos, problems = list_videos(place / folder)
        labels, more = match_names(
            listed.get(folder, {}), videos, place / celebdf.TEST_LIST, place / folder
        )
        yield from (*problems, *more)
        for name, label in labels.items():
            if name in videos:
                if label:
                    yield celebdf.mislabelled_problem(name, folder, 0)
                identity = video_id(dataset, REAL, "", f"cdf/{folder}/{name}")
                yield Video(*videos[name], 0, dataset, REAL, identity, "test")
