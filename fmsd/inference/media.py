"""Files to predict: which they are, and the frames of each as a viewer sees them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from fmsd.checks import check_range
from fmsd.data.extraction.video import Sample, map_frames, open_video, read_index
from fmsd.data.loading.image import SUFFIXES, read_image
from fmsd.data.sources.tree import VIDEO_SUFFIXES, walk_folders
from fmsd.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are scored.

    Args:
        frames: number of frames, evenly spaced from the first to the last; None for all.
        fps: frames per second of the video, in place of `frames`.

    Raises:
        InputError: a number is out of range.
    """

    frames: int | None = 32
    fps: float | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.frames is not None:
            check_range("frames", self.frames, 1)
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"fps={self.fps} is out of range", "give a number from 0 to 1000")

    def count(self, length: int, seconds: float) -> int | None:
        """The number of frames that are taken of a video; None for all.

        Args:
            length: number of its frames.
            seconds: its duration; 0 where unknown.
        """
        if self.fps is None:
            return self.frames
        return max(1, min(length, round(self.fps * seconds))) if seconds else self.frames


def list_media(paths: Iterable[Path]) -> list[Path]:
    """The files below some paths, each once: files as they are, of folders all images and videos.

    Raises:
        InputError: a path does not exist, a folder cannot be read, or there are no files.
    """
    listed: list[Path] = []
    for path in paths:
        if not os.path.lexists(path):
            raise InputError(f"{path} does not exist", "correct the path")
        if path.is_dir():
            for folder, inside in walk_folders(path):
                listed += [folder / name for name in (*inside.images, *inside.videos)]
        else:
            listed.append(path)
    if not listed:
        raise InputError(
            "There are no images or videos to predict", "give files, or folders that hold some"
        )
    return list(dict.fromkeys(listed))


def read_media_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line; relative ones begin at the file's folder.

    Raises:
        InputError: the file cannot be read as UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"The list {path} cannot be read ({error})", "give a text file with one path a line"
        ) from error
    return [path.parent / line for line in lines if line.strip()]


def check_regular(path: Path) -> None:
    """Refuses what is no file: a pipe would be waited for, and a device has no end.

    Raises:
        InputError: the path is no file, or a link to none.
    """
    if not os.path.isfile(path):
        what = "a link to nothing" if not path.exists() else "no file"
        raise InputError(f"{path} is {what}", "give an image or a video")


def expected_frames(path: Path, sampling: Sampling) -> int:
    """About how many frames of a file are scored, by its suffix and header; at least 1."""
    if path.suffix.lower() in SUFFIXES:
        return 1
    if sampling.fps is None and sampling.frames is not None:
        return sampling.frames
    try:
        check_regular(path)
        with open_video(path) as (_, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            seconds = (
                float(stream.duration * stream.time_base)
                if (stream.duration and stream.time_base)
                else 0.0
            )
            length = stream.frames or round(seconds * rate)
    except InputError:
        return 1
    return max(1, sampling.count(length, seconds) or length)


def is_image(path: Path) -> bool:
    """Whether a file is a still image, by its suffix, else by its content."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in VIDEO_SUFFIXES:
        return suffix in SUFFIXES
    try:
        with Image.open(path):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def map_media(path: Path, sampling: Sampling, function: Callable[[Sample], T]) -> Sequence[T]:
    """Applies a function to the frames of a file, without keeping them.

    A video is decoded again from its start where its frames differ from its index: the function is
    called anew, and its earlier results are dropped.

    Raises:
        InputError: the file cannot be read as an image or a video.
    """
    if is_image(path):
        return [function(Sample(0, 0.0, read_image(path)))]
    count = sampling.frames
    if sampling.fps is not None:
        with open_video(path) as (container, stream):
            length = read_index(container, stream).length
            rate = stream.average_rate or stream.guessed_rate
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = length / float(rate) if rate else 0.0
        count = sampling.count(length, seconds)
    return map_frames(path, count, "spread", function)
