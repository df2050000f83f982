"""What may be written where: only below the folder that was asked for, and never over a file of somebody else's."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fmsd.errors import InputError


def path_below(folder: Path, name: str) -> Path:
    """The path of a name below a folder.

    Raises:
        InputError: it lies elsewhere, by its parts or by a link.
    """
    path = folder / name
    home, place = folder.resolve(), path.resolve()
    if place == home or not place.is_relative_to(home):
        raise InputError(
            f"{path} leads out of {folder}, to {place}",
            "remove the link that leads there, or choose another folder",
        )
    return path


def check_replaceable(
    paths: Iterable[Path], mark: Path, ours: Callable[[Path], bool], writer: str, remedy: str
) -> None:
    """Refuses to write files where others lie that the same writer did not write.

    Args:
        paths: the files that would be written.
        mark: the one of them that tells who wrote them all.
        ours: whether the mark, which is a file, was written by the writer; what it raises means
            that it was not.
        writer: for the sentence, `fmsd report`.

    Raises:
        InputError: there is such a file.
    """
    there = [path for path in paths if os.path.lexists(path)]
    if there and not _holds(mark, ours):
        raise InputError(f"{there[0]} was not written by {writer} and would be lost", remedy)


def _holds(mark: Path, ours: Callable[[Path], bool]) -> bool:
    try:
        return mark.is_file() and ours(mark)
    except Exception:  # whatever a reader says about a file of another kind
        return False
