"""Paths as users write them, and what identifies the file at one."""

import hashlib
from pathlib import Path

from fmsd.errors import InputError


def expand_home(path: str | Path) -> Path:
    """A path with a leading `~` or `~user` replaced by that home folder.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"There is no home folder for {path}",
            f"write the whole path, or ./{path} for a folder of that name",
        ) from error


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
