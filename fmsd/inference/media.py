"""Files to predict: which they are, and the frames of each as a viewer sees them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from fmsd.checks import check_range
from fmsd.data.extraction.video import Sample, duration, frame_rate, map_frames, open_video
from fmsd.data.loading.image import SUFFIXES, UNSUPPORTED_SUFFIXES, natural_sort, read_image
from fmsd.data.sources.tree import UNDECODED_VIDEO_SUFFIXES, VIDEO_SUFFIXES, visible_entries
from fmsd.data.spelling import encoding_fault, escape_non_utf8, is_utf8
from fmsd.errors import InputError
from fmsd.paths import expand_home

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

    @property
    def known(self) -> bool:
        """Whether the number of frames does not depend on the video."""
        return self.fps is None and self.frames is not None

    def count(self, length: int, seconds: float) -> int | None:
        """The number of frames that are taken of a video; None for all.

        Args:
            length: number of its frames.
            seconds: its duration; 0 where unknown.
        """
        if self.fps is None:
            return self.frames
        return max(1, min(length, round(self.fps * seconds))) if seconds else self.frames


def list_media(paths: Iterable[Path], listed: Sequence[Path] = ()) -> list[Path]:
    """The files below some paths, each once: files as they are, of folders all images and videos.

    Args:
        listed: paths of a list; of these, what does not exist is a file like any other, which
            cannot be read.

    Raises:
        InputError: one of `paths` does not exist, a folder cannot be read, or there are no files.
    """
    given = list(paths)
    for path in given:
        if not os.path.lexists(path):
            raise InputError(f"{path} does not exist", "correct the path")
    files: list[Path] = []
    for path in (*given, *listed):
        files += media_below(path) if os.path.isdir(path) else [path]  # noqa: PTH112  never raises
    if not files:
        raise InputError(
            "There are no images or videos to predict", "give files, or folders that hold some"
        )
    return list(dict.fromkeys(files))


def media_below(folder: Path, above: Sequence[str] = ()) -> Iterator[Path]:
    """The images and videos below a folder, by their suffixes: images first, subfolders last.

    Broken links and formats that are not decoded are among them: they are not passed over in
    silence.

    Args:
        above: the real paths of the folders that led here; a link back to one is left out.

    Raises:
        InputError: a folder cannot be read.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    images, videos, folders = list[str](), list[str](), list[str]()
    for entry in visible_entries(folder):
        suffix = Path(entry.name).suffix.lower()
        if os.path.isdir(entry.path):  # noqa: PTH112  a link to itself is none
            folders.append(entry.name)
        elif suffix in SUFFIXES | UNSUPPORTED_SUFFIXES:
            images.append(entry.name)
        elif suffix in VIDEO_SUFFIXES | UNDECODED_VIDEO_SUFFIXES or _is_broken(entry):
            videos.append(entry.name)
    yield from (folder / name for name in (*natural_sort(images), *natural_sort(videos)))
    for name in natural_sort(folders):
        yield from media_below(folder / name, (*above, here))


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110


def read_media_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line; relative ones begin at the file's folder.

    Empty lines and lines that begin with `#` are passed over; of a file whose name begins so, the
    line is `./#NAME`. A line ends with a line feed, with or without a carriage return before it:
    other separators of Unicode may be part of a name. A leading `~` is the home folder, where there
    is one.

    Raises:
        InputError: the file cannot be read as UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"The list {path} cannot be read ({error})", "give a text file with one path a line"
        ) from error
    names = [line.removesuffix("\r") for line in lines]
    return [path.parent / _at_home(name) for name in names if name.strip() and name[0] != "#"]


def _at_home(name: str) -> Path:
    try:
        return expand_home(name)
    except InputError:
        return Path(name)


def check_medium(path: Path) -> None:
    """Refuses what is no file, and formats that are not decoded or only in part.

    A pipe would be waited for, and a device has no end.

    Raises:
        InputError: the path is no file, its name is not UTF-8, or its suffix is that of a format
            that is not decoded.
    """
    if not is_utf8(str(path)):
        fault, remedy = encoding_fault(path, "rename it, or the folder above it whose name is not")
        raise InputError(f"The name of {escape_non_utf8(path)} is {fault}", remedy)
    if not os.path.lexists(path):
        raise InputError(f"{path} does not exist", "correct the path")
    if not os.path.isfile(path):
        what = "no file" if os.path.exists(path) else "a link to nothing"  # noqa: PTH110
        raise InputError(f"{path} is {what}", "give an image or a video")
    suffix = path.suffix.lower()
    if suffix in UNSUPPORTED_SUFFIXES | UNDECODED_VIDEO_SUFFIXES:
        remedy = "PNG or JPEG" if suffix in UNSUPPORTED_SUFFIXES else "MP4"
        raise InputError(f"{path} is of a format that is not read", f"convert it to {remedy}")


def expected_frames(path: Path, sampling: Sampling) -> int:
    """About how many frames of a file are scored, by its suffix and header; at least 1."""
    if path.suffix.lower() in SUFFIXES:
        return 1
    if sampling.known and sampling.frames is not None:
        return sampling.frames
    try:
        check_medium(path)
        with open_video(path) as (_, stream):
            length = stream.frames or round(duration(stream) * frame_rate(stream))
            seconds = duration(stream, length)
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
    return map_frames(path, sampling.count, "spread", function)
