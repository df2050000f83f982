"""Videos as the trees of datasets hold them: files or folders of frames, by name."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Concatenate, NamedTuple, NoReturn, ParamSpec

from fmsd.data.frame import Entry, Frame, Problem
from fmsd.data.loading import image
from fmsd.data.loading.image import natural_sort
from fmsd.data.spelling import is_text, printable
from fmsd.errors import InputError

SUFFIXES = frozenset(
    {
        *(
            ".mp4",
            ".m4v",
            ".mov",
            ".qt",
            ".3gp",
            ".3g2",
            ".avi",
            ".divx",
            ".xvid",
            ".mkv",
            ".webm",
            ".ogv",
            ".ogm",
            ".gif",
            ".flv",
            ".f4v",
        ),
        *(
            ".mpg",
            ".mpeg",
            ".mpe",
            ".m1v",
            ".m2v",
            ".m2p",
            ".vob",
            ".ts",
            ".mts",
            ".m2ts",
            ".m2t",
            ".wmv",
            ".asf",
            ".rm",
            ".rmvb",
        ),
        *(
            ".mxf",
            ".dv",
            ".wtv",
            ".nut",
            ".y4m",
            ".mjpeg",
            ".mjpg",
            ".ivf",
            ".h264",
            ".264",
            ".h265",
            ".265",
            ".hevc",
        ),
    }
)
"""File endings that count as videos, in lower case: what FFmpeg takes for plain containers or streams."""

UNREAD = frozenset(
    {
        ".braw",
        ".r3d",
        ".crm",
        ".swf",
        ".yuv",
        ".dav",
        ".bik",
        ".bk2",
        ".amv",
        ".insv",
        ".lrv",
        ".360",
        ".mlv",
        ".nsv",
    }
)
"""Endings of videos that are not decoded, or tell nothing of their content, in lower case."""

FRAMELESS = "folders without frames"
"""The kind of problem of a folder that should hold frames or videos and holds none."""

SIDE = frozenset({"landmarks", "masks", "mask"})
"""Folders beside frames that hold none, in lower case."""

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
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror})",
        "make it and the folders above it readable, or move it away",
    ) from error


def readable(
    scan: Callable[Concatenate[Path, P], Iterator[Entry]],
) -> Callable[Concatenate[Path, P], Iterator[Entry]]:
    """A source that names in one sentence what it cannot read; even the question whether a file is there can meet a locked folder."""

    @functools.wraps(scan)
    def told(root: Path, *args: P.args, **kwargs: P.kwargs) -> Iterator[Entry]:
        if not is_text(str(root)):
            raise InputError(
                f"The name of the folder {printable(root)} is not UTF-8",
                "rename it, or the folder above it that is named so",
            )
        try:
            yield from scan(root, *args, **kwargs)
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


class Contents(NamedTuple):
    """What a folder holds, in order, but for what is hidden.

    Args:
        folders: names of its subfolders.
        images: names of its image files.
        videos: names of its video files.
        problems: what of it is not read: links to nowhere, images and videos with an ending that is
            not decoded.
    """

    folders: list[str]
    images: list[str]
    videos: list[str]
    problems: list[Problem]


def contents(folder: Path) -> Contents:
    """Reads a folder once.

    Raises:
        InputError: the folder cannot be read, or the name of a subfolder, an image or a video in it
            is no UTF-8.
    """
    found = Contents([], [], [], [])
    unread: Counter[str] = Counter()
    for entry in listing(folder):
        ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  many names pass
        if ending in image.SUFFIXES and not entry.is_dir(follow_symlinks=False):
            found.images.append(
                entry.name
            )  # of many: a link is followed when all files are looked for
        elif _is_folder(entry):
            found.folders.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            target = os.readlink(entry.path)  # noqa: PTH115
            what = f"{printable(entry.path)} is a link to {printable(target)}, which is not there"
            found.problems.append(
                Problem("broken links", what, "complete the copy, or remove the link")
            )
            continue
        elif ending in SUFFIXES:
            found.videos.append(entry.name)
        elif ending in image.UNSUPPORTED_SUFFIXES | UNREAD:
            unread[ending] += 1
            continue
        else:
            continue
        if not is_text(entry.name):
            raise InputError(
                f"The folder {printable(folder)} holds {printable(entry.name)}, whose name is not "
                "UTF-8",
                "rename it",
            )
    for ending, count in sorted(unread.items()):
        what = (
            f"{folder} holds {count} {'file' if count == 1 else 'files'} ending in {ending}, "
            f"which {'is' if count == 1 else 'are'} not read"
        )
        remedy = (
            "convert them to PNG or JPEG"
            if ending in image.UNSUPPORTED_SUFFIXES
            else "convert them to MP4"
        )
        found.problems.append(Problem(f"files ending in {ending}", what, remedy, count))
    return Contents(
        natural_sort(found.folders),
        natural_sort(found.images),
        natural_sort(found.videos),
        found.problems,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except PermissionError as error:
        unreadable(error)
    except OSError:  # a link to itself
        return False


def without_frames(folder: Path) -> Problem:
    """The problem of a folder that should hold frames or videos and holds none."""
    return Problem(
        FRAMELESS, f"The folder {folder} holds no frames", "extract them again or remove it"
    )


def walk(root: Path, skipped: Container[str] = ()) -> Iterator[tuple[Path, Contents]]:
    """Every folder below a root, itself included, with what it holds; links are followed.

    Args:
        skipped: names of folders, in lower case, that are left out.

    Raises:
        InputError: as `contents`.
    """
    held = contents(root)
    held.folders[:] = [name for name in held.folders if name.lower() not in skipped]
    yield root, held
    for name in held.folders:
        yield from walk(root / name, skipped)


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def clips(folder: Path, frames: str | None = None) -> tuple[dict[str, Clip], list[Problem]]:
    """The videos of a folder by name, in order: its video files and folders of frames, or those in its subfolders `videos` and `frames`.

    Args:
        folder: for example `Celeb-real`, or `manipulated_sequences/Deepfakes/c23`.
        frames: name of the subfolder that holds the frames; found by itself where there is only
            one.

    Returns:
        The videos, and what is wrong with the folder.

    Raises:
        InputError: there is no such folder, it cannot be read, several subfolders hold frames, or
            two files are one video by their names.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}", "complete the copy, or correct data.root")
    inside = contents(folder)
    held = [name for name in ((frames,) if frames else FRAMES) if name in inside.folders]
    if len(held) > 1:
        raise InputError(
            f"{folder} holds {', '.join(held)}", "choose one with data.source.frames=NAME"
        )
    if frames and not held:
        raise InputError(f"{folder} has no folder {frames}", "correct data.source.frames")
    place = folder / FILES if FILES in inside.folders else folder
    beside = inside if place == folder else contents(place)
    below = folder / held[0] if held else place
    apart = contents(below) if held else beside
    files: dict[str, Path] = {}
    for file in sorted(place / name for name in beside.videos):
        if files.setdefault(file.stem, file) != file:
            raise twice(files[file.stem], file)
    images = {name: below / name for name in apart.folders}
    found = {name: (files.get(name), images.get(name)) for name in natural_sort(files | images)}
    problems = [
        problem
        for part in {id(part): part for part in (inside, beside, apart)}.values()
        for problem in part.problems
    ]
    return found, problems if found else [*problems, without_frames(folder)]


def twice(one: Path, other: Path) -> InputError:
    """What to say where two files, or two folders of frames, are one video by their names."""
    return InputError(f"{one} and {other} are one video by their names", "keep one of them")


def frames(entry: Entry) -> Iterator[Frame | Problem]:
    """The frames of an entry in order: itself, or the images of its folder; and what is wrong with that folder.

    Raises:
        InputError: a video without extracted frames, or a folder that cannot be read.
    """
    if isinstance(entry, Frame | Problem):
        yield entry
    elif entry.images is None:
        raise InputError(
            f"{entry.file} is a video, and no frames are extracted from it",
            "make face crops of the dataset with fmsd extract data=NAME data.root=PATH "
            "out=FOLDER, and train with data.root=FOLDER",
        )
    else:
        held = contents(entry.images)
        yield from held.problems if held.images else [*held.problems, without_frames(entry.images)]
        for index, name in enumerate(held.images):
            yield Frame(
                entry.images / name,
                entry.label,
                entry.dataset,
                entry.domain,
                entry.video,
                index,
                entry.split,
                entry.compression,
            )
