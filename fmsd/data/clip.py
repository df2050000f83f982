"""Videos as the trees of datasets hold them: files or folders of frames, by name."""

import functools
import os
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, ParamSpec

from fmsd.data.image import in_order, is_image
from fmsd.errors import InputError
from fmsd.types import Entry, Frame, Problem, Video

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"})
"""File endings that count as videos, in lower case."""

FRAMES = ("faces", "frames", "images")
"""Folders of extracted frames beside or instead of the videos: `images` by FaceForensics++'s own script, `frames` by DeepfakeBench's."""

FILES = "videos"
"""The folder of video files, where they do not lie directly in their folder."""

FAKE = "fake"
"""The domain of fakes whose forgery a dataset does not tell."""

Clip = tuple[Path | None, Path | None]
"""(video file, folder of extracted frames) of one video; one of them may be None."""

P = ParamSpec("P")


def unreadable(error: OSError) -> NoReturn:
    """A folder or file that cannot be read is no empty one.

    Raises:
        InputError: always.
    """
    raise InputError(f"{error.filename} cannot be read ({error.strerror})", "make it and the folders above it readable, or move it away") from error


def readable(scan: Callable[P, Iterator[Entry]]) -> Callable[P, Iterator[Entry]]:
    """A source that names in one sentence what it may not read; even the question whether a file is there can meet a locked folder."""

    @functools.wraps(scan)
    def told(*args: P.args, **kwargs: P.kwargs) -> Iterator[Entry]:
        try:
            yield from scan(*args, **kwargs)
        except PermissionError as error:
            unreadable(error)

    return told


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, but for hidden files and folders.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        unreadable(error)


def folders(folder: Path) -> list[Path]:
    """The subfolders of a folder in order.

    Raises:
        InputError: the folder cannot be read.
    """
    return [folder / name for name in in_order(entry.name for entry in listing(folder) if entry.is_dir())]


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def clips(folder: Path, frames: str | None = None) -> dict[str, Clip]:
    """The videos of a folder by name, in order: its video files and folders of frames, or those in its subfolders `videos` and `frames`.

    Args:
        folder: for example `Celeb-real`, or `manipulated_sequences/Deepfakes/c23`.
        frames: name of the subfolder that holds the frames; found by itself where there is only one.

    Raises:
        InputError: there is no such folder, it cannot be read, several subfolders hold frames, or two files are one video by their names.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}", "complete the copy, or correct data.root")
    inside = {path.name: path for path in folders(folder)}
    held = [name for name in ((frames,) if frames else FRAMES) if name in inside]
    if len(held) > 1:
        raise InputError(f"{folder} holds {', '.join(held)}", "choose one with data.source.frames=NAME")
    if frames and not held:
        raise InputError(f"{folder} has no folder {frames}", "correct data.source.frames")
    place = inside.get(FILES, folder)
    files: dict[str, Path] = {}
    for file in sorted(place / entry.name for entry in listing(place) if is_video(Path(entry.name)) and entry.is_file()):
        if files.setdefault(file.stem, file) != file:
            raise twice(files[file.stem], file)
    images = {path.name: path for path in folders(inside[held[0]] if held else place)}
    return {name: (files.get(name), images.get(name)) for name in in_order(files | images)}


def twice(one: Path, other: Path) -> InputError:
    """What to say where two files, or two folders of frames, are one video by their names."""
    return InputError(f"{one} and {other} are one video by their names", "keep one of them")


def absent(listed: Iterable[str], held: Container[str], where: Path | str, folder: Path) -> Iterator[Problem]:
    """A problem for each name of a list that the copy does not hold.

    Args:
        where: the list, for the sentence.
        folder: where the videos should be.
    """
    for name in listed:
        if name not in held:
            yield Problem("missing", f"{where} lists {name}, which {folder} does not hold", "complete the copy")


def frames(entry: Entry) -> Iterator[Frame]:
    """The frames of an entry in order: itself, or the images of its folder.

    Raises:
        InputError: a video without extracted frames, or a folder without images or that cannot be read.
    """
    if isinstance(entry, Frame):
        yield entry
    elif isinstance(entry, Video):
        if entry.images is None:
            raise InputError(
                f"{entry.file} is a video, and no frames are extracted from it",
                "make face crops of the dataset with fmsd extract data=NAME data.root=PATH out=FOLDER, and train with data.root=FOLDER",
            )
        images = in_order(item.name for item in listing(entry.images) if is_image(Path(item.name)))
        if not images:
            raise InputError(f"The folder {entry.images} holds no frames", "extract them again or remove it")
        for index, image in enumerate(images):
            yield Frame(entry.images / image, entry.label, entry.dataset, entry.domain, entry.video, index, entry.split, entry.compression)
