"""FaceForensics++ (Rössler et al., ICCV 2019, arXiv 1901.08971) in its official tree.

    ROOT/original_sequences/youtube/COMPRESSION/videos/033.mp4              and, extracted,  COMPRESSION/FRAMES/033/0001.png
    ROOT/manipulated_sequences/METHOD/COMPRESSION/videos/033_097.mp4                         COMPRESSION/FRAMES/033_097/0001.png

FRAMES is `images` (the dataset's own extraction script), `frames` or `faces` (crops). The official
split of 720/140/140 source videos comes from train.json, val.json and test.json, which the
dataset's repository carries, or from a DeepfakeBench JSON file. A root without the tree but with
DeepfakeBench's FaceForensics++.json is read by that.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.data import overrides
from fmsd.data.frame import REAL, SPLITS, Entry, Problem, Split, Video, video_id
from fmsd.data.sources import deepfakebench
from fmsd.data.sources.labels import forgery
from fmsd.data.sources.text import CORRECT, read_json
from fmsd.data.sources.tree import clips, readable
from fmsd.data.spelling import matched
from fmsd.errors import InputError

SPLIT_FOLDERS = (".", "splits", "dataset/splits")
BENCHMARK = "FaceForensics++.json"


@readable
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
) -> Iterator[Entry]:
    """The original videos and those of the chosen manipulations.

    Args:
        compression: `raw`, `c23` or `c40`.
        manipulations: folder names below manipulated_sequences.
        frames: name of the tree's folders of frames; found by itself where there is only one.
        splits: the tree's split: a folder with train.json, val.json and test.json, or a
            DeepfakeBench JSON file; looked for below the root when not given.
        labels: as those of DeepfakeBench's JSON files, for a root without the tree.

    Raises:
        InputError: a missing folder or manipulation, no official split, or what is only for a tree
            (`frames`, `splits`) or only for JSON (`labels`).
    """
    compression = overrides.as_name(compression, "data.source.compression")
    manipulations = [
        forgery(name, "data.source.manipulations")
        for name in overrides.as_names(manipulations, "data.source.manipulations")
    ]
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the FaceForensics++ folder as data.root=PATH"
        )
    if not (root / "original_sequences").is_dir() and deepfakebench.holds(root, BENCHMARK):
        if given := [
            name for name, value in (("frames", frames), ("splits", splits)) if value is not None
        ]:
            raise InputError(
                f"{root} is read by DeepfakeBench's {BENCHMARK}, which lists frames and splits "
                "itself",
                f"remove data.source.{given[0]}",
            )
        yield from _listed(root, dataset, compression, manipulations, labels)
        return
    if labels:
        raise InputError(
            f"data.source.labels is for DeepfakeBench's {BENCHMARK}, and the tree of {root} is "
            "read",
            "leave it out",
        )
    sequences = {REAL: root / "original_sequences" / "youtube" / compression}
    sequences |= {
        name: root / "manipulated_sequences" / name / compression for name in manipulations
    }
    if lacking := [str(folder) for folder in sequences.values() if not folder.is_dir()]:
        raise InputError(
            f"FaceForensics++ lacks {', '.join(lacking)}",
            "complete the copy, or choose data.source.compression and "
            "data.source.manipulations=[...]",
        )
    split_of = read_splits(root, splits)
    for domain, folder in sequences.items():
        held, problems = clips(folder, frames)
        official: dict[str, Split] = {
            name: split_of[name] for name in split_of if ("_" in name) == (domain != REAL)
        }
        official, more = matched(official, held, "the official split", folder)
        yield from (*problems, *more)
        for name, (file, images) in held.items():
            if name not in official:
                yield Problem(
                    "unlisted",
                    f"{images or file} is in none of the official splits and left out",
                    "remove it, or set data.source.splits",
                )
                continue
            identity = video_id(dataset, domain, compression, name)
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                identity,
                official[name],
                compression,
            )


def _listed(
    root: Path,
    dataset: str,
    compression: str,
    manipulations: Sequence[str],
    labels: Mapping[Any, Any] | None,
) -> Iterator[Entry]:
    """What DeepfakeBench's file lists of the original videos and the chosen manipulations."""
    found: set[str] = set()
    for entry in deepfakebench.scan(root, BENCHMARK, dataset, compression, labels):
        if isinstance(entry, Problem):
            yield entry
        elif entry.domain in (REAL, *manipulations):
            found.add(entry.domain)
            yield entry
    if lacking := [name for name in (REAL, *manipulations) if name not in found]:
        raise InputError(
            f"{BENCHMARK} in {root} lists no videos of {', '.join(lacking)}",
            "fetch it again, or choose data.source.manipulations=[...]",
        )


def read_splits(root: Path, splits: str | None) -> dict[str, Split]:
    """The official split of every original video (`033`) and every manipulated one (`033_097`).

    Raises:
        InputError: no split file is found, or it cannot be read.
    """
    usual = [*(root / name for name in SPLIT_FOLDERS), *deepfakebench.places(root, BENCHMARK)]
    places = usual if splits is None else [root / splits]
    for place in places:
        if place.is_file():
            return _benchmark_splits(place)
        if all((place / f"{split}.json").is_file() for split in SPLITS):
            return _official_splits(place)
    raise InputError(
        f"The official FaceForensics++ split was not found in {', '.join(map(str, places))}",
        "copy train.json, val.json and test.json from dataset/splits of the dataset's repository "
        "there, or give data.source.splits=PATH",
    )


def _official_splits(place: Path) -> dict[str, Split]:
    """Each split is a list of pairs of source videos, which are also swapped both ways."""
    found: dict[str, Any] = {}
    for split in SPLITS:
        path = place / f"{split}.json"
        for number, pair in enumerate(read_json(path, list), 1):
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(name, str) for name in pair)
            ):
                raise InputError(f"Pair {number} in {path} is {pair!r}, not two names", CORRECT)
            one, other = pair
            for name in (one, other, f"{one}_{other}", f"{other}_{one}"):
                if found.setdefault(name, split) != split:
                    raise InputError(
                        f"The lists in {place} have {name} in {found[name]} and in {split}",
                        "take the official ones",
                    )
    return found


def _benchmark_splits(path: Path) -> dict[str, Split]:
    """The split under which a DeepfakeBench JSON file lists each video name, in any compression; of several, test before val before train."""
    found: dict[str, Split] = {}
    for groups in deepfakebench.grouped(path).values():
        for label, splits in groups.items():
            for split in deepfakebench.PRIORITY:
                for videos in deepfakebench.compressions(
                    splits.get(split, {}), path, label, split
                ).values():
                    for name in videos:
                        first = found.setdefault(name, split)
                        if deepfakebench.PRIORITY.index(split) < deepfakebench.PRIORITY.index(
                            first
                        ):
                            found[name] = split
    return found
