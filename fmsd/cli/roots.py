"""Where datasets lie: roots that are set once, in environment variables or in one file.

A file of `conf/data` looks up its root by `root: ${root:NAME}`, or by `${root:NAME,SHARED}` where
the dataset may also lie in a folder that it shares with others.
"""

import difflib
import functools
import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from fmsd.cli.conf_files import choice_file, choices, dotted_values, read_conf_file
from fmsd.cli.file_of_roots import FILE, expand, read_roots, roots_file
from fmsd.data.remote import is_remote
from fmsd.errors import InputError

log = logging.getLogger(__name__)

LOOKUP = re.compile(r"\$\{root:\s*([^,}\s]+)(?:\s*,\s*([^,}\s]+))?\s*\}")
"""The value of a data file's `root` that looks it up."""

OTHER_VARIABLES = (
    FILE,
    "FMSD_CACHE",
    "FMSD_FUZZ",
    "FMSD_FUZZ_SEED",
    "FMSD_LAUNCHER",
    "FMSD_PACK_CACHE",
    "FMSD_SWEEP",
    "FMSD_TEST_CACHE",
    "FMSD_TEST_DATA",
    "FMSD_TEST_DIST",
    "FMSD_TEST_SIGNALS",
)
"""Environment variables of fmsd and its tests that are no roots."""


class Dataset(NamedTuple):
    """A dataset whose root can be set.

    Args:
        shared: the name of a folder in which it may lie with others; None without one.
        file: its JSON file of DeepfakeBench in that folder; None if it has none.
    """

    name: str
    shared: str | None
    file: str | None


class Root(NamedTuple):
    """A root that is set.

    Args:
        place: a folder, or the address of a pack.
        origin: the variable or the file that sets it.
        key: its name there.
    """

    place: str
    origin: str
    key: str

    @property
    def folder(self) -> Path | None:
        """The folder; None for an address."""
        return None if is_remote(self.place) else Path(self.place)

    def __str__(self) -> str:
        """The place where it is set, for messages."""
        return self.origin if self.origin == variable(self.key) else f"{self.key} in {self.origin}"


@functools.cache
def datasets() -> dict[str, Dataset]:
    """The datasets whose root can be set, by name: those of fmsd and of the installed plugins.

    Raises:
        InputError: a data file cannot be read, or a name has the variable of something else.
    """
    found: dict[str, Dataset] = {}
    for choice in choices("data"):
        values = _data_values(choice)
        file = values.get("data.source.file")
        match = LOOKUP.fullmatch(str(values.get("data.root")))
        if match and (match[1] == choice or match[1] not in found):  # others may build on its root
            is_json = isinstance(file, str) and file.endswith(".json")
            found[match[1]] = Dataset(match[1], match[2], file if is_json else None)
    names = {name for dataset in found.values() for name in dataset[:2] if name is not None}
    owners: dict[str, str] = {}
    for name in sorted(names):
        if (other := owners.setdefault(variable(name), name)) != name:
            raise InputError(
                f"Two data files look up their roots by ${{root:{other}}} and ${{root:{name}}}: "
                f"both would have the variable {variable(name)}",
                "rename one of the datasets",
            )
    return found


def _data_values(choice: str) -> dict[str, Any]:
    """What a data file sets, by dotted key."""
    package, values = read_conf_file(choice_file("data", choice))
    return dotted_values(values, package)


def variable(name: str) -> str:
    """The environment variable of a dataset's root: `FMSD_FFPP` for `ff++`.

    Raises:
        InputError: it is the variable of something else.
    """
    found = _variable(name)
    if found in OTHER_VARIABLES:
        raise InputError(
            f"A data file cannot look up its root by ${{root:{name}}}: {found} sets something else",
            f"give the dataset another name than {name}",
        )
    return found


def _variable(name: str) -> str:
    return "FMSD_" + re.sub(r"\W", "_", name.upper().replace("+", "P"))


def find_root(name: str, shared: str | None = None) -> Root | None:
    """The root of a dataset as it is set; it need not exist. None if it is not set.

    A root of the dataset's own comes before the shared one, and a variable before the file.

    Raises:
        InputError: the file cannot be used.
    """
    for key in (name, shared):
        if key is None:
            continue
        if value := os.environ.get(variable(key)):
            return Root(expand(value, variable(key)), variable(key), key)
        file = roots_file()
        if file is not None and (place := read_roots(file).get(key)) is not None:
            return Root(place, str(file), key)
    return None


def existing_root(name: str, shared: str | None = None) -> str | None:
    """The root of a dataset, for `${root:NAME,SHARED}`; None if it is not set.

    Warns of a line of the file that seems to name this dataset, but is spelt otherwise.

    Raises:
        InputError: it is no folder, or the file of roots cannot be used.
    """
    root = find_root(name, shared)
    if root is None:
        file = roots_file()
        for other in () if file is None else read_roots(file):
            if other not in datasets() and nearest_dataset(other) == name:
                _warn_of_spelling(file, other, name)
        return None
    if is_lost(root):
        raise InputError(
            f"{root.place}, which {root} gives as the root of {name}, is no folder",
            f"correct it there, or give data.root=PATH (data.roots.{name}=PATH for a test dataset)",
        )
    return root.place


@functools.cache
def _warn_of_spelling(file: Path | None, written: str, meant: str) -> None:
    """Logs once that a line of the file of roots seems to be misspelt."""
    log.warning("%s names %s, which is no dataset: did you mean %s?", file, written, meant)


def is_lost(root: Root) -> bool:
    """Whether a root is no folder, or lies in one that cannot be read; an address is not tried."""
    if root.folder is None:
        return False
    return not os.path.isdir(root.folder)  # noqa: PTH112  Path.is_dir raises for the latter


def is_absent(folder: Path | None) -> bool:
    """Whether a folder is missing, empty or unreadable; None, for an address, is not.

    An empty folder is often the mount point of a disk that is not mounted.
    """
    if folder is None:
        return False
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def nearest_dataset(name: str) -> str | None:
    """The dataset that a misspelt name may mean; None if all are far from it."""
    spelling = {_variable(known): known for known in datasets()}
    close = difflib.get_close_matches(_variable(name), list(spelling), n=1, cutoff=0.8)
    return spelling[close[0]] if close else None
