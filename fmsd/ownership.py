"""Safe places to write: below the given folder only, and never over foreign files."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fmsd.errors import InputError


def path_below(folder: Path, name: str) -> Path:
    """The path `folder / name`, checked to lie below the folder.

    Raises:
        InputError: it lies elsewhere, by `..`, as an absolute path or by a link.
    """
    path = folder / name
    root, target = folder.resolve(), path.resolve()
    if target == root or not target.is_relative_to(root):
        raise InputError(
            f"{path} leads out of {folder}, to {target}",
            "remove the link that leads there, or choose another folder",
        )
    return path


def check_replaceable(
    paths: Iterable[Path], mark: Path, ours: Callable[[Path], bool], writer: str, remedy: str
) -> None:
    """Checks that files to be written replace only files of the same writer.

    Args:
        paths: the files to be written.
        mark: the one of them that shows which writer wrote them all.
        ours: whether an existing mark is of the writer; an exception counts as no.
        writer: name for the message, e.g. `fmsd report`.
        remedy: for the message.

    Raises:
        InputError: a foreign file would be replaced.
    """
    existing = [path for path in paths if os.path.lexists(path)]
    if existing and not _is_ours(mark, ours):
        raise InputError(f"{existing[0]} was not written by {writer} and would be lost", remedy)


def _is_ours(mark: Path, ours: Callable[[Path], bool]) -> bool:
    try:
        return mark.is_file() and ours(mark)
    except Exception:  # any error of a reader means a file of another kind
        return False
