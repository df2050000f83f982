"""FaceForensics++ (Rössler et al., ICCV 2019, arXiv 1901.08971): frames in the official tree.

    ROOT/original_sequences/youtube/COMPRESSION/FRAMES/033/0001.png
    ROOT/manipulated_sequences/METHOD/COMPRESSION/FRAMES/033_097/0001.png

FRAMES is `images` (the dataset's own extraction script), `frames` or `faces` (crops). The official split of 720/140/140 source videos comes
from train.json, val.json and test.json, which the dataset's repository carries, or from a DeepfakeBench JSON file.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.data.image import in_order, is_image
from fmsd.data.manifest import SPLITS
from fmsd.types import REAL, Frame, InputError, Split, video_id

log = logging.getLogger(__name__)

FRAMES = ("faces", "frames", "images")
SPLIT_FOLDERS = (".", "splits", "dataset/splits")
BENCHMARK = ("FaceForensics++.json", "dataset_json/FaceForensics++.json")


def scan(
    root: Path,
    dataset: str = "ff++",
    compression: str = "c23",
    manipulations: Sequence[str] = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"),
    frames: str | None = None,
    splits: str | None = None,
) -> Iterator[Frame]:
    """The frames of the original videos and of the chosen manipulations.

    Args:
        compression: `raw`, `c23` or `c40`.
        manipulations: folder names below manipulated_sequences.
        frames: name of the folder that holds the frames; found by itself where there is only one.
        splits: folder with train.json, val.json and test.json, or a DeepfakeBench JSON file; looked for below the root when not given.

    Raises:
        InputError: a missing folder, videos without extracted frames, or a video that is in no split.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give the FaceForensics++ folder as data.root=PATH.")
    sequences = {REAL: root / "original_sequences" / "youtube" / compression}
    sequences |= {name: root / "manipulated_sequences" / name / compression for name in manipulations}
    if absent := [str(folder) for folder in sequences.values() if not folder.is_dir()]:
        raise InputError(
            f"FaceForensics++ lacks {', '.join(absent)}; complete the copy, or choose data.source.compression and data.source.manipulations=[...]."
        )
    split_of = read_splits(root, splits)
    for domain, folder in sequences.items():
        place = _frames(folder, frames)
        videos = sorted(path for path in place.iterdir() if path.is_dir())
        official = {name for name in split_of if ("_" in name) == (domain != REAL)}
        if absent := official - {video.name for video in videos}:
            log.warning("%s lacks %d of the %d official videos, %s among them.", place, len(absent), len(official), min(absent))
        for video in videos:
            if video.name not in split_of:
                raise InputError(
                    f"The video {video} is in none of the official splits; remove it, or give the split files as data.source.splits=PATH."
                )
            images = in_order(path.name for path in video.iterdir() if is_image(path))
            if not images:
                raise InputError(f"The folder {video} holds no frames; extract them again or remove it.")
            for index, image in enumerate(images):
                yield Frame(
                    path=video / image,
                    label=0 if domain == REAL else 1,
                    dataset=dataset,
                    domain=domain,
                    video=video_id(dataset, domain, compression, video.name),
                    index=index,
                    split=split_of[video.name],
                    compression=compression,
                )


def _frames(folder: Path, name: str | None) -> Path:
    """The folder of extracted frames beside or instead of the videos."""
    found = [folder / choice for choice in ((name,) if name else FRAMES) if (folder / choice).is_dir()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{folder} holds {', '.join(path.name for path in found)}; choose one with data.source.frames=NAME.")
    held = "videos but no extracted frames" if (folder / "videos").is_dir() else "no frames"
    raise InputError(
        f"{folder} holds {held} (looked for {name or ', '.join(FRAMES)}); extract the frames first, or name their folder in data.source.frames."
    )


def read_splits(root: Path, splits: str | None) -> dict[str, Split]:
    """The official split of every original video (`033`) and every manipulated one (`033_097`).

    Raises:
        InputError: no split file is found, or it cannot be read.
    """
    places = [root / splits] if splits is not None else [root / name for name in (*SPLIT_FOLDERS, *BENCHMARK)]
    for place in places:
        try:
            if place.is_file():
                return _benchmark_splits(json.loads(place.read_text()))
            if all((place / f"{split}.json").is_file() for split in SPLITS):
                return _official_splits({split: json.loads((place / f"{split}.json").read_text()) for split in SPLITS})
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"The split file {place} cannot be read ({error}); fetch it again from the dataset's repository.") from error
    raise InputError(
        f"The official FaceForensics++ split was not found in {', '.join(map(str, places))}; copy train.json, val.json and test.json "
        "from dataset/splits of the dataset's repository there, or give data.source.splits=PATH."
    )


def _official_splits(pairs: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Split]:
    """Each split is a list of pairs of source videos, which are also swapped both ways."""
    found: dict[str, Any] = {}
    for split, couples in pairs.items():
        for one, other in couples:
            found |= dict.fromkeys((one, other, f"{one}_{other}", f"{other}_{one}"), split)
    return found


def _benchmark_splits(content: Mapping[str, Any]) -> dict[str, Split]:
    """The split under which a DeepfakeBench JSON file lists each video name."""
    found: dict[str, Any] = {}
    for labels in content.values():
        for splits in labels.values():
            for split, levels in splits.items():
                for videos in levels.values():
                    found |= dict.fromkeys(videos, split)
    return found
