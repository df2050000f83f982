"""FaceForensics++ (Rössler et al., ICCV 2019, arXiv 1901.08971) in its official tree.

    ROOT/original_sequences/youtube/COMPRESSION/videos/033.mp4
    ROOT/original_sequences/youtube/COMPRESSION/FRAMES/033/0001.png         extracted frames
    ROOT/manipulated_sequences/METHOD/COMPRESSION/videos/033_097.mp4
    ROOT/manipulated_sequences/METHOD/COMPRESSION/FRAMES/033_097/0001.png
    ROOT/manipulated_sequences/METHOD/masks/videos/033_097.mp4              where there are any

`033_097` is made from the video 033, with the face or expression of 097.
FRAMES is `images` (the dataset's own extraction script), `frames` or `faces` (crops). The official
split of 720/140/140 source videos comes from train.json, val.json and test.json of the dataset's
repository, or from a DeepfakeBench JSON file; without either, from the copy of the former that
comes with the package. A root without the tree but with DeepfakeBench's FaceForensics++.json is
read by that file.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.data import name_overrides, split_lists
from fmsd.data.frame import REAL, SPLITS, Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources import deepfakebench
from fmsd.data.sources.deepfakebench import SPLIT_PRIORITY
from fmsd.data.sources.deepfakebench_json import (
    by_compression,
    has_json,
    json_candidates,
    read_groups,
)
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.partner_names import target_sequence
from fmsd.data.sources.text import CORRECT_ENTRY, read_json
from fmsd.data.sources.tree import list_masks, list_videos, refuse_unreadable
from fmsd.data.spelling import match_names
from fmsd.errors import InputError
from fmsd.names import name_fault

log = logging.getLogger(__name__)

SPLIT_FOLDERS = (".", "splits", "dataset/splits")
"""Folders below the root in which train.json, val.json and test.json may lie."""

BENCHMARK_JSON = "FaceForensics++.json"
"""DeepfakeBench's JSON file of the dataset."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "ff++",
    compression: str | int = "c23",
    manipulations: int | Sequence[str | int] = (
        "Deepfakes",
        "Face2Face",
        "FaceSwap",
        "NeuralTextures",
    ),
    frames: str | None = None,
    splits: str | None = None,
    labels: Mapping[Any, Any] | None = None,
    file: str = BENCHMARK_JSON,
) -> Iterator[Entry]:
    """The original videos and those of the chosen manipulations.

    Args:
        compression: `raw`, `c23` or `c40`.
        manipulations: folder names below manipulated_sequences.
        frames: name of the tree's folders of frames; detected where there is only one.
        splits: the tree's split: a folder with train.json, val.json and test.json, or a
            DeepfakeBench JSON file; searched below the root when None.
        labels: as of DeepfakeBench's JSON files, for a root without the tree.
        file: DeepfakeBench's JSON file, for a root without the tree.

    Raises:
        InputError: a missing folder or manipulation, no official split, or an argument that applies
            only to a tree (`frames`, `splits`) or only to JSON (`labels`).
    """
    compression = name_overrides.as_name(compression, "data.source.compression")
    manipulations = [
        forgery_domain(name, "data.source.manipulations")
        for name in name_overrides.as_names(manipulations, "data.source.manipulations")
    ]
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the FaceForensics++ folder as data.root=PATH"
        )
    if (root / "original_sequences").is_dir() or not has_json(root, file):
        if labels:
            raise InputError(
                f"data.source.labels is for DeepfakeBench's {file}, and the tree of {root} is read",
                "leave it out",
            )
        yield from _scan_tree(root, dataset, compression, manipulations, frames, splits)
        return
    for name, value in (("frames", frames), ("splits", splits)):
        if value is not None:
            raise InputError(
                f"{root} is read by DeepfakeBench's {file}, which lists frames and splits itself",
                f"remove data.source.{name}",
            )
    yield from _scan_json(root, file, dataset, compression, manipulations, labels)


def _scan_tree(
    root: Path,
    dataset: str,
    compression: str,
    manipulations: Sequence[str],
    frames: str | None,
    splits: str | None,
) -> Iterator[Entry]:
    """The videos of the official tree."""
    folders = {REAL: root / "original_sequences" / "youtube" / compression}
    folders |= {name: root / "manipulated_sequences" / name / compression for name in manipulations}
    if lacking := [str(folder) for folder in folders.values() if not folder.is_dir()]:
        raise InputError(
            f"FaceForensics++ lacks {', '.join(lacking)}",
            "complete the copy, or choose data.source.compression and "
            "data.source.manipulations=[...]",
        )
    split_of = read_splits(root, splits)
    for domain, folder in folders.items():
        videos, problems = list_videos(folder, frames)
        masks = {} if domain == REAL else list_masks(folder)
        official: dict[str, Split] = {
            name: split for name, split in split_of.items() if ("_" in name) == (domain != REAL)
        }
        domains = dict.fromkeys(official, domain)
        official, more = match_names(official, videos, "the official split", folder, domains)
        yield from (*problems, *more)
        for name, (file, images) in videos.items():
            if name not in official:
                yield Problem(
                    "unlisted",
                    f"{images or file} is in none of the official splits and left out",
                    "remove it, or set data.source.splits",
                )
                continue
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                video_id(dataset, domain, compression, name),
                official[name],
                compression,
                "" if domain == REAL else pair_id(dataset, compression, target_sequence(name)),
                mask=masks.get(name),
            )


def _scan_json(
    root: Path,
    file: str,
    dataset: str,
    compression: str,
    manipulations: Sequence[str],
    labels: Mapping[Any, Any] | None,
) -> Iterator[Entry]:
    """The original videos and the chosen manipulations in DeepfakeBench's JSON file."""
    domains = (REAL, *manipulations)
    present: set[str] = set()
    for entry in deepfakebench.scan(root, file, dataset, compression, labels):
        if isinstance(entry, Problem):
            yield entry
        elif entry.domain in domains:
            present.add(entry.domain)
            yield entry
    if lacking := [name for name in domains if name not in present]:
        raise InputError(
            f"{file} in {root} lists no videos of {', '.join(lacking)}",
            "fetch it again, or choose data.source.manipulations=[...]",
        )


def read_splits(root: Path, splits: str | None) -> dict[str, Split]:
    """The split of every original video (`033`) and every manipulated one (`033_097`).

    It is that of the copy, which is compared with the official one, or else the official one.

    Args:
        splits: a folder or a DeepfakeBench JSON file, relative to the root; searched when None.

    Raises:
        InputError: there is no such file, some of the three are missing, or it cannot be read.
    """
    official = split_lists.split_by_name(split_lists.FFPP)
    usual = [root / name for name in SPLIT_FOLDERS] + json_candidates(root, BENCHMARK_JSON)
    places = usual if splits is None else [root / splits]
    incomplete: list[Path] = []
    for place in places:
        lacking = [file for split in SPLITS if not (file := place / f"{split}.json").is_file()]
        if place.is_file() or not lacking:
            split_of = _benchmark_splits(place) if lacking else _official_splits(place)
            if difference := split_lists.list_difference(split_of, official):
                log.warning(
                    "%s is not the official split of FaceForensics++: it %s.", place, difference
                )
            return split_of
        incomplete += lacking[:1] if len(lacking) < len(SPLITS) else []
    if incomplete:
        raise InputError(
            f"The split of FaceForensics++ in {incomplete[0].parent} lacks {incomplete[0].name}",
            "copy it there from dataset/splits of the dataset's repository, or remove the other "
            "lists: the official split comes with fmsd",
        )
    if splits is not None:
        raise InputError(
            f"{places[0]} holds no split of FaceForensics++",
            "correct data.source.splits=PATH, or leave it out: the official split comes with fmsd",
        )
    log.info("%s holds no split of FaceForensics++: the official one is used.", root)
    return official


def _official_splits(place: Path) -> dict[str, Split]:
    """The split of each video by lists of pairs of source videos, which are swapped both ways."""
    split_of: dict[str, Any] = {}
    for split in SPLITS:
        path = place / f"{split}.json"
        for number, pair in enumerate(read_json(path, list), 1):
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(name, str) for name in pair)
            ):
                raise InputError(
                    f"Pair {number} in {path} is {pair!r}, not two names", CORRECT_ENTRY
                )
            one, other = pair
            for name in (one, other, f"{one}_{other}", f"{other}_{one}"):
                if fault := name_fault(name):
                    raise InputError(f"{name!r} in pair {number} of {path} {fault[0]}", fault[1])
                if name in split_of:
                    again = f"in {split_of[name]} and in {split}"
                    raise InputError(
                        f"The lists in {place} have {name} "
                        f"{again if split_of[name] != split else f'twice in {split}'}",
                        "take the official ones",
                    )
                split_of[name] = split
    return split_of


def _benchmark_splits(path: Path) -> dict[str, Split]:
    """The split of each video by a DeepfakeBench JSON file, in any compression.

    Of several splits the first of `SPLIT_PRIORITY` is taken.
    """
    split_of: dict[str, Split] = {}
    for groups in read_groups(path).values():
        for label, splits in groups.items():
            for split in SPLIT_PRIORITY:
                levels = by_compression(splits.get(split, {}), path, label, split)
                for name in (name for videos in levels.values() for name in videos):
                    earlier = split_of.setdefault(name, split)
                    if SPLIT_PRIORITY.index(split) < SPLIT_PRIORITY.index(earlier):
                        split_of[name] = split
    return split_of
