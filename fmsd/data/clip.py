"""Videos as the trees of datasets hold them: files or folders of frames, by name."""

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from fmsd.data.image import in_order, is_image
from fmsd.types import Entry, Frame, InputError, Problem, Video

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"})
"""File endings that count as videos, in lower case."""

FRAMES = ("faces", "frames", "images")
"""Folders of extracted frames beside or instead of the videos: `images` by FaceForensics++'s own script, `frames` by DeepfakeBench's."""

FILES = "videos"
"""The folder of video files, where they do not lie directly in their folder."""

Clip = tuple[Path | None, Path | None]
"""(video file, folder of extracted frames) of one video; one of them may be None."""


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def clips(folder: Path, frames: str | None = None) -> dict[str, Clip]:
    """The videos of a folder by name, in order: its video files and folders of frames, or those in its subfolders `videos` and `frames`.

    Args:
        folder: for example `Celeb-real`, or `manipulated_sequences/Deepfakes/c23`.
        frames: name of the subfolder that holds the frames; found by itself where there is only one.

    Raises:
        InputError: there is no such folder, or several subfolders hold frames.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; complete the copy, or correct data.root.")
    held = [name for name in ((frames,) if frames else FRAMES) if (folder / name).is_dir()]
    if len(held) > 1:
        raise InputError(f"{folder} holds {', '.join(held)}; choose one with data.source.frames=NAME.")
    if frames and not held:
        raise InputError(f"{folder} has no folder {frames}; correct data.source.frames.")
    place = folder / FILES if (folder / FILES).is_dir() else folder
    files = {path.stem: path for path in _children(place) if is_video(path) and path.is_file()}
    if held:
        images = {path.name: path for path in _children(folder / held[0]) if path.is_dir()}
    else:
        images = {path.name: path for path in _children(place) if path.is_dir()}
    return {name: (files.get(name), images.get(name)) for name in in_order(files | images)}


def _children(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        return [folder / entry.name for entry in found if not entry.name.startswith(".")]


def absent(listed: Iterable[str], held: Container[str], where: Path | str, folder: Path) -> Iterator[Problem]:
    """A problem for each name of a list that the copy does not hold.

    Args:
        where: the list, for the sentence.
        folder: where the videos should be.
    """
    for name in listed:
        if name not in held:
            yield Problem("missing", f"{where} lists {name}, which {folder} does not hold; complete the copy.")


def frames(entry: Entry) -> Iterator[Frame]:
    """The frames of an entry in order: itself, or the images of its folder.

    Raises:
        InputError: a video without extracted frames, or a folder without images.
    """
    if isinstance(entry, Frame):
        yield entry
    elif isinstance(entry, Video):
        if entry.images is None:
            raise InputError(
                f"{entry.file} is a video, and no frames are extracted from it; make face crops of the dataset with fmsd extract data=NAME "
                "data.root=PATH out=FOLDER, and train with data.root=FOLDER."
            )
        with os.scandir(entry.images) as found:
            images = in_order(item.name for item in found if is_image(Path(item.name)))
        if not images:
            raise InputError(f"The folder {entry.images} holds no frames; extract them again or remove it.")
        for index, image in enumerate(images):
            yield Frame(entry.images / image, entry.label, entry.dataset, entry.domain, entry.video, index, entry.split, entry.compression)
