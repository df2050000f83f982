"""Where the runs that a command names are: folders, or addresses on the Hub."""

import os
from collections.abc import Collection
from pathlib import Path

from fmsd.cli.data_config import absolute_path
from fmsd.errors import InputError
from fmsd.hub_addresses import address_of, is_address
from fmsd.paths import expand_home
from fmsd.runs.folder import Run


def run_folder(word: str, files: Collection[str] = ()) -> Path:
    """The folder of a run; one on the Hub is fetched into the cache.

    Args:
        word: a path, or an address such as hf://USER/NAME.
        files: patterns of the files that are needed, see `fmsd.runs.hub`; by default all but
            predictions.

    Raises:
        InputError: there is no such run on the Hub, or no connection.
    """
    if not is_address(word):
        return Path(absolute_path(word))
    from fmsd.runs.hub import RUN_FILES, fetch_run

    return fetch_run(word, files or RUN_FILES)


def check_named_run(word: str) -> None:
    """Refuses a folder that is no finished run before libraries are imported, which takes seconds.

    Args:
        word: as of `run_folder`; an address is not looked up yet.

    Raises:
        InputError: see `fmsd.runs.folder.Run.record`.
    """
    if not is_address(word):
        path = Path(absolute_path(word))
        if path.is_dir() or not path.exists():
            Run(path).record()


def record_folder(word: str) -> Path:
    """The folder of one or many runs of which records and configurations are needed."""
    if not is_address(word):
        return expand_home(word)
    from fmsd.runs.hub import RECORD_FILES, fetch_run

    return fetch_run(word, RECORD_FILES)


def whole_folder(word: str) -> Path:
    """The folder of one or many runs of which all files are needed."""
    if not is_address(word):
        return expand_home(word)
    from fmsd.runs.hub import ALL_FILES, fetch_run

    return fetch_run(word, ALL_FILES)


def exact_word(word: str) -> str:
    """A path or address with what it means now: the absolute path, or the address with its commit.

    Links stay, since names in caches show their format.
    """
    if not is_address(word):
        return os.path.normpath(absolute_path(word))
    return address_of(run_folder(word)) or word


def check_local(word: str, verb: str, key: str) -> None:
    """Rejects an address where a run is changed.

    Raises:
        InputError: the run is on the Hub.
    """
    if is_address(word):
        raise InputError(
            f"{key}={word} is on the Hub, where {verb} cannot write",
            f"give the folder of a run of your own as {key}=FOLDER",
        )
