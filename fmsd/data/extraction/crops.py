"""From one video, or the images of one, to a folder of face crops and a record of every frame that was looked at.

    OUT/DATASET/DOMAIN/COMPRESSION/NAME/000017.png
    OUT/DATASET/DOMAIN/COMPRESSION/NAME/video.json

The folder appears in one step when all of it is written, so what is there is whole.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmsd.atomic import atomic
from fmsd.data.extraction.faces import Finder
from fmsd.data.extraction.look import look
from fmsd.data.extraction.recipe import Crop, Recipe, encoded
from fmsd.data.frame import Entry, Frame, Problem, Split, Video
from fmsd.data.sources.tree import frames, unreadable
from fmsd.errors import InputError, reason
from fmsd.names import check_distinct, check_name, check_names
from fmsd.ownership import path_below

RECORD = "video.json"
"""What tells about every frame of a video that was looked at; its presence means that the video is done."""


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
    """What became of a video; or why nothing was made of it.

    Args:
        frames: number of frames looked at.
        statuses: numbers of faces and of frames without one by status, see
            `fmsd.data.extraction.look`.
        small: number of faces below `min_face`, kept or not.
        corrupt: number of frames that are decoded with damage, kept or not.
        faceless: number of frames that show no face.
        several: number of frames that show several faces.
        picture: how its frames are shown, as in its record.
    """

    video: str
    frames: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    small: int = 0
    corrupt: int = 0
    faceless: int = 0
    several: int = 0
    picture: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def crops(self) -> int:
        """Number of crops."""
        return self.statuses.get("face", 0)


ABOUT = ("video", "label", "dataset", "domain", "split", "compression")
"""What a record repeats of its source."""


def sources(entries: Iterable[Entry], problems: list[Problem]) -> list[Source]:
    """The videos that a dataset's source yields, ordered by id; frames are put together to videos. Problems are put aside.

    Raises:
        InputError: two files, or a file and frames, are one video, or the crops of two videos would
            lie in one folder or one inside the other.
    """
    images: dict[str, list[Frame]] = {}
    found: dict[str, Source] = {}
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
        elif isinstance(entry, Video) and entry.file is not None:
            if entry.video in found:
                raise InputError(
                    f"{found[entry.video].file} and {entry.file} are both the video {entry.video}",
                    "keep one of them",
                )
            found[entry.video] = Source(
                entry.video, entry.file, (), *(getattr(entry, name) for name in ABOUT[1:])
            )
        else:
            for frame in frames(entry):
                if isinstance(frame, Problem):
                    problems.append(frame)
                else:
                    images.setdefault(frame.video, []).append(frame)
    for name, own in images.items():
        if name in found:
            raise InputError(
                f"{found[name].file} and {own[0].path} are both the video {name}",
                "keep one of them",
            )
        listed = tuple(sorted((frame.index, frame.path) for frame in own))
        found[name] = Source(name, None, listed, *(getattr(own[0], key) for key in ABOUT[1:]))
    check_distinct(found)
    if taken := next((name for name in found if _taken(name)), None):
        raise InputError(
            f"The video id {taken!r} is the name of a file that fmsd extract writes itself",
            "rename it",
        )
    return [found[name] for name in sorted(found)]


def _taken(video: str) -> bool:
    """Whether an id has the name of a file of ours, in whatever case."""
    first, *rest = video.casefold().split("/")
    return (
        RECORD in rest
        or first == RECORD
        or re.fullmatch(r"manifest\.parquet|extract\.json|failures-.*\.csv", first) is not None
    )


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

    Raises:
        InputError: where its crops should lie is something else, which must not be replaced.
    """
    folder = path_below(out, source.video)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["video"] != source.video:
            raise InputError(
                f"{folder} holds the crops of {record['video']}",
                f"move it away, or give its video back as it was: {source.video}",
            )
        about = {name: getattr(source, name) for name in ABOUT}
        if record["source"] == origin(source):
            if any(record[name] != value for name, value in about.items()):
                with atomic(folder / RECORD) as partial:
                    partial.write_text(json.dumps(record | about), encoding="utf-8")
            return True
    except (ValueError, KeyError, TypeError, FileNotFoundError, NotADirectoryError):
        pass
    check_own(folder)
    return False


CROP = re.compile(r"\d{6,}(_\d+)?\.(png|jpg)")
"""The name of a crop."""


def check_own(folder: Path) -> None:
    """Refuses to replace a folder that is not one of crops alone; it may be missing or empty.

    Raises:
        InputError: it holds something else.
    """
    if not os.path.lexists(folder):
        return
    remedy = "move it away, or choose another out=FOLDER"
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is no folder of crops that fmsd extract wrote", remedy)
    held = sorted(folder.iterdir())
    if held and not (folder / RECORD).is_file():
        raise InputError(
            f"{folder} is no folder of crops that fmsd extract wrote (it has no {RECORD})", remedy
        )
    if other := next(
        (
            path
            for path in held
            if path.is_dir() or not (path.name == RECORD or CROP.fullmatch(path.name))
        ),
        None,
    ):
        raise InputError(f"{other} was not written by fmsd extract and would be lost", remedy)


def check_around(found: Iterable[Source], out: Path) -> None:
    """Refuses videos whose folders would lie in that of another video's crops.

    Raises:
        InputError: there is one.
    """
    around: set[str] = set()
    for source in found:
        parts = source.video.split("/")
        for folder in {"/".join(parts[:end]) for end in range(1, len(parts))} - around:
            around.add(folder)
            if (out / folder / RECORD).is_file():
                raise InputError(
                    f"The crops of {source.video} would lie in those of {folder}",
                    "rename one of them, or choose another out=FOLDER",
                )


def origin(source: Source) -> dict[str, Any]:
    """What tells whether the source of some crops has changed: a file's name, size and time; the names of images, size and time of first and last."""
    if source.file is not None:
        about = source.file.stat()
        return {"file": source.file.name, "size": about.st_size, "modified": about.st_mtime_ns}
    ends = [path.stat() for _, path in (source.images[0], source.images[-1]) if path.is_file()]
    told = [
        *(path.name for _, path in source.images),
        *(f"{about.st_size} {about.st_mtime_ns}" for about in ends),
    ]
    return {
        "images": len(source.images),
        "digest": hashlib.sha256("\n".join(told).encode()).hexdigest(),
    }


def extract(source: Source, find: Finder, recipe: Recipe, out: Path, work: Path) -> Outcome:
    """Writes the crops of one video below `out`, or nothing.

    Args:
        work: a folder on the same disk, where they are written first.

    Raises:
        InputError: something else lies where they should.
        OSError: they cannot be written.
    """
    try:
        record, crops = looked_at(source, find, recipe)
    except InputError as error:
        return Outcome(source.video, failure=str(error))
    folder, partial = path_below(out, source.video), work / uuid.uuid4().hex
    try:
        partial.mkdir()
        for name, pixels in crops.items():
            (partial / name).write_bytes(encoded(pixels, recipe))
        (partial / RECORD).write_text(json.dumps(record), encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_own(folder)  # once more: somebody may have put something there meanwhile
        if folder.exists():  # made of another file, or with a damaged record
            folder.replace(partial.with_suffix(".old"))
        partial.replace(folder)
    finally:
        for left in (partial, partial.with_suffix(".old")):
            shutil.rmtree(left, ignore_errors=True)
    return outcome(record, recipe)


def outcome(record: dict[str, Any], recipe: Recipe) -> Outcome:
    """What became of a video by its record."""
    lines = record["frames"]

    def frames(holds: Callable[[dict[str, Any]], bool]) -> int:
        return len(
            {line["index"] for line in lines if holds(line)}
        )  # a frame has a line for each person

    return Outcome(
        record["video"],
        frames=frames(lambda line: True),
        statuses=Counter(line["status"] for line in lines),
        small=sum(line.get("side", recipe.min_face) < recipe.min_face for line in lines),
        corrupt=frames(lambda line: line["status"] == "corrupt" or line.get("corrupt", False)),
        faceless=frames(lambda line: line["status"] == "none"),
        several=frames(lambda line: line["faces"] > 1),
        picture=record["picture"],
    )


def looked_at(
    source: Source, find: Finder, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, Crop]]:
    """The record of a video, and its crops by file name.

    Raises:
        InputError: as `look`.
    """
    seen, crops = look(source.file, source.images, find, recipe)
    return {name: getattr(source, name) for name in ABOUT} | {
        "source": origin(source)
    } | seen, crops


def records(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, record) of every video whose crops lie in `out`.

    Raises:
        InputError: a folder or a record that cannot be read, or names in it that no extraction
            writes.
    """
    for folder, subfolders, files in os.walk(out, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if RECORD in files:
            path = Path(folder)
            try:
                record = json.loads((path / RECORD).read_text(encoding="utf-8"))
                about = {name: record[name] for name in (*ABOUT, "frames")}
                check_names(
                    *(about[name] for name in ("dataset", "domain", "compression", "video"))
                )
                for frame in about["frames"]:
                    whole = {"index": frame["index"], "person": frame.get("person", 1)}
                    if odd := next(
                        (
                            key
                            for key, value in whole.items()
                            if type(value) is not int or value < 0
                        ),
                        None,
                    ):
                        raise InputError(f"the {odd} of a frame is {whole[odd]!r}", "")
                    if not isinstance(frame["status"], str):
                        raise InputError(f"the status of a frame is {frame['status']!r}", "")
                    if frame["status"] == "face":
                        check_name(frame["file"], "file name")
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise InputError(
                    f"{path / RECORD} is damaged ({reason(error)})",
                    "delete its folder and run fmsd extract again",
                ) from error
            except InputError as error:
                raise InputError(
                    f"{path / RECORD} is damaged ({error.message})",
                    "delete its folder and run fmsd extract again",
                ) from error
            yield path, about
