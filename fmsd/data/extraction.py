"""From one video, or the images of one, to a folder of face crops and a record of every frame that was looked at.

    OUT/DATASET/DOMAIN/COMPRESSION/NAME/000017.png
    OUT/DATASET/DOMAIN/COMPRESSION/NAME/video.json

The folder appears in one step when all of it is written, so what is there is whole.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from fmsd.atomic import atomic
from fmsd.data.clip import frames, unreadable
from fmsd.data.faces import Face, Finder, crop, followed
from fmsd.data.image import read_image
from fmsd.data.manifest import places
from fmsd.data.video import Sample, each
from fmsd.errors import InputError, reason
from fmsd.types import Entry, Frame, Problem, Split, Video

RECORD = "video.json"
"""What tells about every frame of a video that was looked at; its presence means that the video is done."""

Crop = UInt8[ndarray, "size size 3"]

UP = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP) if hasattr(cv2, "IMWRITE_PNG_FILTER") else ()
"""Each row of a PNG as its difference from the one above, where OpenCV is new enough to be told."""

FORMATS = ("png", "jpg")
SAMPLING = ("spread", "first")
CODING: dict[str, Callable[[int], tuple[int, ...]]] = {
    "png": lambda _: (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, *UP),
    "jpg": lambda quality: (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
}
"""How OpenCV is asked to write a format. These settings of PNG take half the time of its level 1, at the same size."""

WORDS = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Recipe:
    """How crops are made.

    Args:
        frames: at most so many of a video; None for all.
        sampling: `spread` evenly from its first to its last, or the `first` ones.
        size: side of a crop in pixels.
        margin: side of a crop as a multiple of the tight face's.
        align: bring eyes, nose and mouth to fixed places; otherwise only cut out the box.
        track: keep to one person within a video; otherwise take the largest face of each frame.
        format: `png`, or `jpg`.
        quality: of JPEG, from 1 to 100.
    """

    frames: int | None = 32
    sampling: str = "spread"
    size: int = 256
    margin: float = 1.3
    align: bool = True
    track: bool = True
    format: str = "png"
    quality: int = 95

    def __post_init__(self) -> None:
        """Refuses what cannot be made."""
        kinds: dict[str, tuple[type, ...]] = dict.fromkeys(("size", "quality"), (int,)) | {"frames": (int, type(None)), "margin": (int, float)}
        kinds |= dict.fromkeys(("align", "track"), (bool,))
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                raise InputError(f"{name}={value} is not {' or '.join(WORDS[one] for one in kind)}", "correct it")
        wrong = {
            f"frames={self.frames} must be at least 1, or null for all": self.frames is not None and self.frames < 1,
            f"sampling={self.sampling} is unknown; choose one of {', '.join(SAMPLING)}": self.sampling not in SAMPLING,
            f"size={self.size} must be at least 16 pixels": self.size < 16,
            f"margin={self.margin} must be at least 1": self.margin < 1,
            f"format={self.format} is unknown; choose one of {', '.join(FORMATS)}": self.format not in FORMATS,
            f"quality={self.quality} must lie between 1 and 100": not 1 <= self.quality <= 100,
        }
        if found := [what for what, holds in wrong.items() if holds]:
            raise InputError("; ".join(found), "correct these keys")


@dataclass(frozen=True)
class Source:
    """One video to extract.

    Args:
        video: its id; the crops lie in a folder of this name.
        file: the video file; None where there are only images.
        images: (position in the video, image file), where there is no video file.
    """

    video: str
    file: Path | None
    images: tuple[tuple[int, Path], ...]
    label: int
    dataset: str
    domain: str
    split: Split
    compression: str


@dataclass(frozen=True)
class Outcome:
    """What became of a video: numbers of frames looked at, of those that could not be decoded, and of crops; or why nothing was made of it."""

    video: str
    frames: int = 0
    damaged: int = 0
    crops: int = 0
    failure: str = ""


ABOUT = ("video", "label", "dataset", "domain", "split", "compression")
"""What a record repeats of its source."""


def sources(entries: Iterable[Entry], problems: list[Problem]) -> list[Source]:
    """The videos that a dataset's source yields, ordered by id; frames are put together to videos. Problems are put aside.

    Raises:
        InputError: two files, or a file and frames, are one video.
    """
    images: dict[str, list[Frame]] = {}
    found: dict[str, Source] = {}
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
        elif isinstance(entry, Video) and entry.file is not None:
            if entry.video in found:
                raise InputError(f"{found[entry.video].file} and {entry.file} are both the video {entry.video}", "keep one of them")
            found[entry.video] = Source(entry.video, entry.file, (), *(getattr(entry, name) for name in ABOUT[1:]))
        else:
            for frame in frames(entry):
                if isinstance(frame, Problem):
                    problems.append(frame)
                else:
                    images.setdefault(frame.video, []).append(frame)
    for name, own in images.items():
        if name in found:
            raise InputError(f"{found[name].file} and {own[0].path} are both the video {name}", "keep one of them")
        listed = tuple(sorted((frame.index, frame.path) for frame in own))
        found[name] = Source(name, None, listed, *(getattr(own[0], key) for key in ABOUT[1:]))
    return [found[name] for name in sorted(found)]


def first(found: Iterable[Source], videos: int | None) -> list[Source]:
    """At most `videos` of each dataset, split and domain, for a quick trial; None keeps all."""
    seen: Counter[tuple[str, ...]] = Counter()
    kept = []
    for source in found:
        kind = (source.dataset, source.split, source.domain)
        seen[kind] += 1
        if videos is None or seen[kind] <= videos:
            kept.append(source)
    return kept


def done(source: Source, out: Path) -> bool:
    """Whether a video's crops lie in `out`; a record whose label, split or the like are no longer those of the source is corrected.

    A video whose file has changed since, or whose record is damaged, is not done.
    """
    path = out / source.video / RECORD
    if not path.is_file():
        return False
    try:
        record = json.loads(path.read_text())
        if record["source"] != origin(source):
            return False
        about = {name: getattr(source, name) for name in ABOUT}
        if any(record[name] != value for name, value in about.items()):
            with atomic(path) as partial:
                partial.write_text(json.dumps(record | about))
    except (ValueError, KeyError, TypeError):
        return False
    return True


def origin(source: Source) -> dict[str, Any]:
    """What tells whether the source of some crops has changed: a file's size and time, or the names of images."""
    if source.file is not None:
        about = source.file.stat()
        return {"file": source.file.name, "size": about.st_size, "modified": about.st_mtime_ns}
    names = "\n".join(path.name for _, path in source.images)
    return {"images": len(source.images), "names": hashlib.sha256(names.encode()).hexdigest()}


def extract(source: Source, find: Finder, recipe: Recipe, out: Path, work: Path) -> Outcome:
    """Writes the crops of one video below `out`, or nothing.

    Args:
        work: a folder on the same disk, where they are written first.

    Raises:
        OSError: they cannot be written.
    """
    try:
        record, crops = looked_at(source, find, recipe)
    except InputError as error:
        return Outcome(source.video, failure=str(error))
    folder, partial = out / source.video, work / uuid.uuid4().hex
    try:
        partial.mkdir()
        for name, pixels in crops.items():
            (partial / name).write_bytes(encoded(pixels, recipe))
        (partial / RECORD).write_text(json.dumps(record))
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # made of another file, or without a record
            folder.replace(partial.with_suffix(".old"))
        partial.replace(folder)
    finally:
        for left in (partial, partial.with_suffix(".old")):
            shutil.rmtree(left, ignore_errors=True)
    return Outcome(source.video, len(record["frames"]), sum(frame["status"] == "damaged" for frame in record["frames"]), len(crops))


class Look(NamedTuple):
    """What was seen in a frame, which is too large to be kept itself.

    Args:
        found: number of faces; -1 where the frame cannot be decoded.
        faces: those that may be kept, the largest first, and `crops` of them.
    """

    position: int
    seconds: float
    found: int
    faces: list[Face]
    crops: list[Crop]


def looked_at(source: Source, find: Finder, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Crop]]:
    """The record of a video's frames, and its crops by file name.

    The status of a frame is `face`, `none` (no face in it), `other` (not the person of the video) or `damaged` (it cannot be decoded).

    Raises:
        InputError: the video cannot be opened, ends too early, or none of its frames can be decoded.
    """

    def see(sample: Sample) -> Look:
        if sample.image is None:
            return Look(sample.position, sample.seconds, -1, [], [])
        found = find(sample.image)
        kept = found if recipe.track else found[:1]
        crops = [crop(sample.image, face, recipe.size, recipe.margin, recipe.align) for face in kept]
        return Look(sample.position, sample.seconds, len(found), kept, crops)

    looks = seen(source, recipe, see)
    if all(look.found < 0 for look in looks):
        raise InputError(f"None of the frames of {source.file or source.images[0][1].parent} can be decoded", "copy it again from its source")
    chosen = followed([look.faces for look in looks]) if recipe.track else [look.faces[0] if look.faces else None for look in looks]
    told, crops = [], dict[str, Crop]()
    for look, face in zip(looks, chosen, strict=True):
        line: dict[str, Any] = {"index": look.position, "seconds": round(look.seconds, 4), "faces": max(look.found, 0)}
        if face is None:
            told.append(line | {"status": "damaged" if look.found < 0 else "other" if look.found else "none"})
            continue
        name = f"{look.position:06d}.{recipe.format}"
        crops[name] = next(cut for one, cut in zip(look.faces, look.crops, strict=True) if one is face)
        where = {"box": [round(x, 2) for x in face.box], "points": face.points.round(2).tolist(), "score": round(face.score, 4)}
        told.append(line | {"status": "face", "file": name} | where)
    return {name: getattr(source, name) for name in ABOUT} | {"source": origin(source), "frames": told}, crops


def seen(source: Source, recipe: Recipe, see: Callable[[Sample], Look]) -> list[Look]:
    """What is seen in the frames of a video that a recipe takes.

    Raises:
        InputError: the video file cannot be opened, or is cut off.
    """
    if source.file is None:
        taken = places(len(source.images), recipe.frames, recipe.sampling)
        return [see(image(*source.images[place])) for place in taken]
    return each(source.file, recipe.frames, recipe.sampling, see, whole=True)


def image(position: int, path: Path) -> Sample:
    """An image file as a frame of a video."""
    try:
        return Sample(position, 0.0, read_image(path))
    except InputError:
        return Sample(position, 0.0, None)


def encoded(pixels: Crop, recipe: Recipe) -> bytes:
    """A crop as the bytes of an image file; JPEG without colour subsampling, which would blur traces in colour."""
    return cv2.imencode(f".{recipe.format}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), CODING[recipe.format](recipe.quality))[1].tobytes()


def records(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, record) of every video whose crops lie in `out`.

    Raises:
        InputError: a folder or a record that cannot be read.
    """
    for folder, subfolders, files in os.walk(out, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if RECORD in files:
            path = Path(folder)
            try:
                record = json.loads((path / RECORD).read_text())
                yield path, {name: record[name] for name in (*ABOUT, "frames")}
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise InputError(f"{path / RECORD} is damaged ({reason(error)})", "delete its folder and run fmsd extract again") from error
