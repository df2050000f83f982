"""The videos to extract: the entries of a dataset's source, one value for each video."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fmsd.data.extraction.masks import Mask
from fmsd.data.frame import Audio, Entry, Frame, Problem, Split, Video
from fmsd.data.sources.tree import entry_frames
from fmsd.errors import InputError
from fmsd.names import check_distinct

RECORD_FILE = "video.json"
"""The file that records every processed frame of a video; its presence marks the video as done."""

SOURCE_KEYS = ("video", "label", "dataset", "domain", "split", "compression", "pair", "audio")
"""The keys of a record that are copied from its source video."""


@dataclass(frozen=True)
class SourceVideo:
    """One video to extract.

    Args:
        video: its id; the crops lie in a folder of this name.
        file: the video file; None where there are only images.
        images: (position in the video, image file), where there is no video file.
        label, dataset, domain, split, compression, pair, audio: as those of a frame.
        masks: the masks that show its forged face, or the same face of a real video, the best one
            first.
    """

    video: str
    file: Path | None
    images: tuple[tuple[int, Path], ...]
    label: int
    dataset: str
    domain: str
    split: Split
    compression: str
    pair: str = ""
    audio: Audio = ""
    masks: tuple[Mask, ...] = ()


def group_videos(entries: Iterable[Entry], problems: list[Problem]) -> list[SourceVideo]:
    """The videos among the entries of a dataset's source, by id; frames are grouped to videos.

    Args:
        problems: the problems among the entries are appended to it.

    Raises:
        InputError: two files, or a file and frames, are one video, or the crops of two videos would
            lie in one folder or one inside the other.
    """
    images: dict[str, list[Frame]] = {}
    masks: dict[str, tuple[Mask, ...]] = {}
    videos: dict[str, SourceVideo] = {}
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
            continue
        if isinstance(entry, Video) and entry.mask is not None:
            masks[entry.video] = (Mask(entry.video, entry.mask),)
        if isinstance(entry, Video) and entry.file is not None:
            if entry.video in videos:
                raise InputError(
                    f"{videos[entry.video].file} and {entry.file} are both the video {entry.video}",
                    "keep one of them",
                )
            about = (getattr(entry, name) for name in SOURCE_KEYS[1:])
            videos[entry.video] = SourceVideo(entry.video, entry.file, (), *about)
        else:
            for frame in entry_frames(entry):
                if isinstance(frame, Problem):
                    problems.append(frame)
                else:
                    images.setdefault(frame.video, []).append(frame)
    for name, frames in images.items():
        if name in videos:
            raise InputError(
                f"{videos[name].file} and {frames[0].path} are both the video {name}",
                "keep one of them",
            )
        listed = tuple(sorted((frame.index, frame.path) for frame in frames))
        about = (getattr(frames[0], key) for key in SOURCE_KEYS[1:])
        videos[name] = SourceVideo(name, None, listed, *about)
    check_distinct(videos)
    if reserved := next((name for name in videos if _is_reserved(name)), None):
        raise InputError(
            f"The video id {reserved!r} is the name of a file that fmsd extract writes itself",
            "rename it",
        )
    return [replace(videos[name], masks=masks.get(name, ())) for name in sorted(videos)]


def _is_reserved(video: str) -> bool:
    """Whether an id is the name of a file that an extraction writes, in any case."""
    first, *rest = video.casefold().split("/")
    return (
        RECORD_FILE in rest
        or first == RECORD_FILE
        or re.fullmatch(r"(manifest|absent)\.parquet|extract\.json|failures-.*\.csv", first)
        is not None
    )


def limit_videos(sources: Iterable[SourceVideo], videos: int | None) -> list[SourceVideo]:
    """The first `videos` of each dataset, split and domain, for a quick trial; None for all."""
    counts: Counter[tuple[str, ...]] = Counter()
    kept = []
    for source in sources:
        kind = (source.dataset, source.split, source.domain)
        counts[kind] += 1
        if videos is None or counts[kind] <= videos:
            kept.append(source)
    return kept


def file_state(source: SourceVideo) -> dict[str, Any]:
    """The state by which a changed source is recognized, as its record stores it.

    A video file's name, size and time; or a digest of the names of all images and of the size and
    time of the first and the last. The first mask's name, size and time, where there are masks.
    """
    masks = {}
    if source.masks and (path := source.masks[0].path).exists():
        about = path.stat()
        masks = {"mask": [path.name, about.st_size, about.st_mtime_ns]}
    if source.file is not None:
        about = source.file.stat()
        return {
            "file": source.file.name,
            "size": about.st_size,
            "modified": about.st_mtime_ns,
        } | masks
    ends = [path.stat() for _, path in (source.images[0], source.images[-1]) if path.is_file()]
    lines = [
        *(path.name for _, path in source.images),
        *(f"{about.st_size} {about.st_mtime_ns}" for about in ends),
    ]
    return {
        "images": len(source.images),
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    } | masks
