"""Where files are kept that can be made or fetched again: singular directions, the face detector's model, the embedded dataset."""

import os
from pathlib import Path

from fmsd.errors import InputError


def cache_folder() -> Path:
    """`$FMSD_CACHE`, or `fmsd` in `$XDG_CACHE_HOME`, or `~/.cache/fmsd`; it need not exist.

    Raises:
        InputError: none of them is known, as there is no home folder.
    """
    if chosen := os.environ.get("FMSD_CACHE"):
        return _expanded(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (
        Path(shared) / "fmsd" if Path(shared).is_absolute() else _expanded("~/.cache/fmsd")
    )  # its specification has relative ones ignored


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"There is no home folder for the cache {path}",
            "set FMSD_CACHE to a folder that can be written",
        ) from error
