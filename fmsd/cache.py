"""The folder of files that can be made or fetched again.

It holds singular value decompositions, the face detector's model and the embedded dataset.
"""

import os
from pathlib import Path

from fmsd.errors import InputError
from fmsd.paths import expand_home


def cache_folder() -> Path:
    """`$FMSD_CACHE`, or `fmsd` in `$XDG_CACHE_HOME`, or `~/.cache/fmsd`; it need not exist.

    Raises:
        InputError: there is no home folder for a path that needs one.
    """
    if chosen := os.environ.get("FMSD_CACHE"):
        return _expand(chosen)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is invalid by its standard
    return shared / "fmsd" if shared.is_absolute() else _expand("~/.cache/fmsd")


def _expand(path: str) -> Path:
    try:
        return expand_home(path)
    except InputError as error:
        raise InputError(
            f"There is no home folder for the cache {path}",
            "set FMSD_CACHE to a folder that can be written",
        ) from error
