"""Listing of a dataset's tree: folders, their images and videos, and folders of frames."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Concatenate, NamedTuple, NoReturn, ParamSpec

from fmsd.data.frame import Entry, Frame, Problem
from fmsd.data.loading import image
from fmsd.data.loading.image import natural_sort
from fmsd.data.spelling import encoding_fault, escape_non_utf8, is_utf8
from fmsd.errors import InputError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".xvid", ".mkv", ".webm",
    ".ogv", ".ogm", ".gif", ".flv", ".f4v", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".m2p", ".vob",
    ".ts", ".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".rm", ".rmvb", ".mxf", ".dv", ".wtv", ".nut",
    ".y4m", ".mjpeg", ".mjpg", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc",
})
"""Suffixes of video files, in lower case: FFmpeg's plain containers and streams."""

UNDECODED_VIDEO_SUFFIXES = frozenset({
    ".braw", ".r3d", ".crm", ".swf", ".yuv", ".dav", ".bik", ".bk2", ".amv", ".insv", ".lrv",
    ".360", ".mlv", ".nsv",
})
"""Suffixes of video files that are not decoded or do not describe their content, in lower case."""
# fmt: on

FRAMELESS = "folders without frames"
"""The kind of problem of a folder that should contain frames or videos and contains none."""

SIDE_FOLDERS = frozenset({"landmarks", "masks", "mask"})
"""Folders beside frames that contain no frames, in lower case."""

FRAME_FOLDERS = ("faces", "frames", "images")
"""Folders of extracted frames, beside or instead of the videos.

FaceForensics++'s own script writes `images`, DeepfakeBench's `entry_frames`; `faces` are crops.
"""

VIDEO_FOLDER = "videos"
"""The subfolder of the video files, in datasets that have one."""

FAKE = "fake"
"""The domain of fakes whose forgery method the dataset does not name."""

VideoPaths = tuple[Path | None, Path | None]
"""(video file, folder of extracted frames) of one video; one of them may be None."""

P = ParamSpec("P")


def raise_unreadable(error: OSError) -> NoReturn:
    """Refuses a folder or file that cannot be read, which must not pass for an empty one.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror})",
        "make it and the folders above it readable, or move it away",
    ) from error


def refuse_unreadable(
    scan: Callable[Concatenate[Path, P], Iterator[Entry]],
) -> Callable[Concatenate[Path, P], Iterator[Entry]]:
    """Decorates a source: denied permissions and a root that is not UTF-8 become an `InputError`.

    Even the check whether a file exists can be denied.
    """

    @functools.wraps(scan)
    def checked_scan(root: Path, *args: P.args, **kwargs: P.kwargs) -> Iterator[Entry]:
        if not is_utf8(str(root)):
            fault, remedy = encoding_fault(
                root, "rename it, or the folder above it whose name is not"
            )
            raise InputError(f"The name of the folder {escape_non_utf8(root)} is {fault}", remedy)
        try:
            yield from scan(root, *args, **kwargs)
        except PermissionError as error:
            raise_unreadable(error)

    return checked_scan


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, without hidden files and folders.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise_unreadable(error)


class FolderContents(NamedTuple):
    """The visible entries of a folder by kind, each in order.

    Args:
        folders: names of its subfolders.
        images: names of its image files.
        videos: names of its video files.
        problems: entries that are not read: broken links, and images and videos with a suffix that
            is not decoded.
    """

    folders: list[str]
    images: list[str]
    videos: list[str]
    problems: list[Problem]


def read_folder(folder: Path) -> FolderContents:
    """Lists a folder in one pass.

    Raises:
        InputError: the folder cannot be read, or the name of a subfolder, an image or a video in it
            is not UTF-8.
    """
    folders: list[str] = []
    images: list[str] = []
    videos: list[str] = []
    problems: list[Problem] = []
    undecoded = Counter[str]()
    for entry in visible_entries(folder):
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  many names pass
        if suffix in image.SUFFIXES and not entry.is_dir(follow_symlinks=False):
            images.append(entry.name)  # one of many: links are followed when all files are checked
        elif _is_folder(entry):
            folders.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            problems.append(_broken_link(entry))
            continue
        elif suffix in VIDEO_SUFFIXES:
            videos.append(entry.name)
        else:
            if suffix in image.UNSUPPORTED_SUFFIXES | UNDECODED_VIDEO_SUFFIXES:
                undecoded[suffix] += 1
            continue
        if not is_utf8(entry.name):
            fault, remedy = encoding_fault(entry.name, "rename it")
            raise InputError(
                f"The folder {escape_non_utf8(folder)} holds {escape_non_utf8(entry.name)}, whose "
                f"name is {fault}",
                remedy,
            )
    problems += [
        _undecoded_files(folder, suffix, count) for suffix, count in sorted(undecoded.items())
    ]
    return FolderContents(
        natural_sort(folders), natural_sort(images), natural_sort(videos), problems
    )


def _broken_link(entry: os.DirEntry[str]) -> Problem:
    target = os.readlink(entry.path)  # noqa: PTH115
    return Problem(
        "broken links",
        f"{escape_non_utf8(entry.path)} is a link to {escape_non_utf8(target)}, which is not there",
        "complete the copy, or remove the link",
    )


def _undecoded_files(folder: Path, suffix: str, count: int) -> Problem:
    files, are = ("file", "is") if count == 1 else ("files", "are")
    return Problem(
        f"files ending in {suffix}",
        f"{folder} holds {count} {files} ending in {suffix}, which {are} not read",
        "convert them to PNG or JPEG"
        if suffix in image.UNSUPPORTED_SUFFIXES
        else "convert them to MP4",
        count,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except PermissionError as error:
        raise_unreadable(error)
    except OSError:  # a link to itself
        return False


def frameless_problem(folder: Path, domain: str | None = None) -> Problem:
    """The problem of a folder that should contain frames or videos and contains none."""
    what = f"The folder {folder} holds no frames"
    return Problem(FRAMELESS, what, "extract them again", domain=domain)


def walk_folders(
    root: Path, skipped: Container[str] = (), above: tuple[Path, ...] = ()
) -> Iterator[tuple[Path, FolderContents]]:
    """Every folder below a root, itself included, with its contents; links are followed.

    A link to a folder above it is a problem of the folder that holds it.

    Args:
        skipped: names of folders, in lower case, that are left out.
        above: the folders above the root.

    Raises:
        InputError: as `read_folder`.
    """
    inside = read_folder(root)
    above = (*above, root)
    kept = [name for name in inside.folders if name.lower() not in skipped]
    circles: set[str] = set()
    if links := [name for name in kept if (root / name).is_symlink()]:
        targets = {folder.resolve() for folder in above}  # not by inodes: some mounts have none
        circles = {name for name in links if (root / name).resolve() in targets}
    inside.folders[:] = [name for name in kept if name not in circles]
    inside.problems.extend(_circle(root / name) for name in kept if name in circles)
    yield root, inside
    for name in inside.folders:
        yield from walk_folders(root / name, skipped, above)


def _circle(link: Path) -> Problem:
    return Problem(
        "links in circles",
        f"{link} is a link to a folder that holds it",
        "it is not followed: remove it",
    )


def is_video(path: Path) -> bool:
    """Whether a file is a video by its suffix; hidden files are not."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def list_videos(
    folder: Path, frames: str | None = None
) -> tuple[dict[str, VideoPaths], list[Problem]]:
    """The videos of a folder by name, in order.

    These are its video files and folders of frames, or those in its subfolders for them, such as
    `videos` and `entry_frames`.

    Args:
        folder: for example `Celeb-real`, or `manipulated_sequences/Deepfakes/c23`.
        frames: name of the subfolder of frames; detected where there is only one.

    Returns:
        The videos, and the problems of the folder.

    Raises:
        InputError: there is no such folder, it cannot be read, several subfolders hold frames, or
            two files are one video by their names.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}", "complete the copy, or correct data.root")
    top = read_folder(folder)
    candidates = (frames,) if frames else FRAME_FOLDERS
    present = [name for name in candidates if name in top.folders]
    if len(present) > 1:
        raise InputError(
            f"{folder} holds {', '.join(present)}", "choose one with data.source.frames=NAME"
        )
    if frames and not present:
        raise InputError(f"{folder} has no folder {frames}", "correct data.source.frames")
    video_folder = folder / VIDEO_FOLDER if VIDEO_FOLDER in top.folders else folder
    in_videos = top if video_folder == folder else read_folder(video_folder)
    frame_folder = folder / present[0] if present else video_folder
    in_frames = read_folder(frame_folder) if present else in_videos
    files: dict[str, Path] = {}
    for file in sorted(video_folder / name for name in in_videos.videos):
        if files.setdefault(file.stem, file) != file:
            raise duplicate_video_error(files[file.stem], file)
    images = {name: frame_folder / name for name in in_frames.folders}
    videos = {name: (files.get(name), images.get(name)) for name in natural_sort(files | images)}
    distinct = {id(contents): contents for contents in (top, in_videos, in_frames)}
    problems = [problem for contents in distinct.values() for problem in contents.problems]
    return videos, problems if videos else [*problems, frameless_problem(folder)]


def list_masks(folder: Path) -> dict[str, Path]:
    """The masks of a folder of manipulated videos of FaceForensics++ or DeepFakeDetection, by name.

    Args:
        folder: of a manipulation in one compression; the masks of all lie in `masks` beside it.
    """
    masks = folder.parent / "masks" / VIDEO_FOLDER
    names = read_folder(masks).videos if masks.is_dir() else []
    return {Path(name).stem: masks / name for name in names}


def duplicate_video_error(one: Path, other: Path) -> InputError:
    """The error for two files, or two folders of frames, that are one video by their names."""
    return InputError(f"{one} and {other} are one video by their names", "keep one of them")


def one_of_two(one: VideoPaths, other: VideoPaths) -> VideoPaths:
    """The one of two videos of equal name that is not an empty folder.

    Raises:
        InputError: neither is.
    """
    for this, that in ((one, other), (other, one)):
        if that[0] is None and that[1] is not None and not visible_entries(that[1]):
            return this
    raise duplicate_video_error(*(Path(str(file or images)) for file, images in (one, other)))


def entry_frames(entry: Entry) -> Iterator[Frame | Problem]:
    """The frames of an entry in order: itself, or the images of a video's folder and its problems.

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
        inside = read_folder(entry.images)
        yield from inside.problems
        if not inside.images:
            yield frameless_problem(entry.images, entry.domain)
        for index, name in enumerate(inside.images):
            yield Frame(
                entry.images / name,
                entry.label,
                entry.dataset,
                entry.domain,
                entry.video,
                index,
                entry.split,
                entry.compression,
                entry.pair,
                entry.audio,
            )
