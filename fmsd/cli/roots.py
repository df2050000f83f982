"""Where datasets lie: roots that are set once, in environment variables or in one file.

A file of `conf/data` looks up its root by `root: ${root:NAME}`, or by `${root:NAME,SHARED}` where
the dataset may also lie in a folder that it shares with others.
"""

import difflib
import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from fmsd.cli.conf_files import choice_file, choices
from fmsd.errors import InputError
from fmsd.paths import expand_home
from fmsd.safe_yaml import LOADER, check_yaml

FILE = "FMSD_ROOTS"
"""The environment variable that names the file."""

LOOKUP = re.compile(r"^ *root: *[\"']?\$\{root:([^,}\s]+)(?:, *([^,}\s]+))?\}", re.MULTILINE)
"""The line of a data file that looks up its root."""

JSON_FILE = re.compile(r"^ +file: *(\S+\.json)\b", re.MULTILINE)
"""The line of a data file that names the JSON file of DeepfakeBench."""


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
        origin: the variable or the file that sets it.
        key: its name there.
    """

    path: Path
    origin: str
    key: str

    def __str__(self) -> str:
        """The place where it is set, for messages."""
        return self.origin if self.origin == variable(self.key) else f"{self.key} in {self.origin}"


@functools.cache
def datasets() -> dict[str, Dataset]:
    """The datasets whose root can be set, by name: those of fmsd and of the installed plugins."""
    found: dict[str, Dataset] = {}
    for choice in choices("data"):
        text = choice_file("data", choice).read_text(encoding="utf-8")
        file = JSON_FILE.search(text)
        for name, shared in LOOKUP.findall(text):
            found[name] = Dataset(name, shared or None, file and file[1])
    return found


def variable(name: str) -> str:
    """The environment variable of a dataset's root: `FMSD_FFPP` for `ff++`."""
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
            return Root(_expand(value, variable(key)), variable(key), key)
        file = roots_file()
        if file is not None and (path := read_roots(file).get(key)) is not None:
            return Root(path, str(file), key)
    return None


def existing_root(name: str, shared: str | None = None) -> str | None:
    """The root of a dataset, for `${root:NAME,SHARED}`; None if it is not set.

    Raises:
        InputError: it is no folder, or the file of roots cannot be used.
    """
    root = find_root(name, shared)
    if root is None:
        return None
    if not os.path.isdir(root.path):  # noqa: PTH112  False, too, for a folder that cannot be read
        raise InputError(
            f"{root.path}, the root of {name} by {root}, is no folder",
            f"correct it there, or give data.root=PATH (data.roots.{name}=PATH for a test dataset)",
        )
    return str(root.path)


def roots_file() -> Path | None:
    """`$FMSD_ROOTS`, or `fmsd/roots.yaml` in `$XDG_CONFIG_HOME` or in `~/.config`.

    Returns:
        The file; None if the default one does not exist.

    Raises:
        InputError: FMSD_ROOTS names no file.
    """
    if chosen := os.environ.get(FILE):
        if not (path := expand_home(chosen)).is_file():
            raise InputError(f"{FILE}={chosen} is no file", "correct it, or unset it")
        return path
    path = default_file()
    return path if path is not None and path.is_file() else None


def default_file() -> Path | None:
    """The file of roots without FMSD_ROOTS; None if there is no home folder."""
    shared = Path(os.environ.get("XDG_CONFIG_HOME", ""))  # its standard ignores relative ones
    try:
        home = shared if shared.is_absolute() else expand_home("~/.config")
    except InputError:
        return None
    return home / "fmsd" / "roots.yaml"


def read_roots(file: Path) -> dict[str, Path]:
    """The roots in a file: a line `NAME: PATH` for each dataset.

    Raises:
        InputError: it cannot be read, is no such list, names a dataset that does not exist, one
            twice, or a path that is not absolute.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not encoded in UTF-8", "save it again in UTF-8") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", "make it readable") from error
    remedy = "write a line like celebdf_v2: /data/celebdf_v2 for each dataset"
    try:
        check_yaml(text, file)
    except InputError as error:
        raise InputError(error.message, remedy) from error
    node = yaml.compose(text, LOADER)
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{file} is no list of roots", remedy)
    roots: dict[str, Path] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            line = key.start_mark.line + 1
            raise InputError(f"Line {line} of {file} is not of the form NAME: PATH", remedy)
        roots[_known(key.value, roots, file)] = _absolute(key.value, value.value, file)
    return roots


def _known(name: str, before: dict[str, Path], file: Path) -> str:
    """The name of a dataset in the file.

    Raises:
        InputError: there is no such dataset, or the file named it before.
    """
    if name in before:
        raise InputError(f"{file} has {name} twice", "remove one of the lines")
    if name not in datasets():
        spelling = {variable(known): known for known in datasets()}
        close = difflib.get_close_matches(variable(name), list(spelling), n=1, cutoff=0.8)
        meant = f" (did you mean {spelling[close[0]]}?)" if close else ""
        raise InputError(
            f"{file} names {name}, which is no dataset with a root of its own{meant}",
            f"correct or remove it; there are {', '.join(datasets())}",
        )
    return name


def _expand(text: str, place: str) -> Path:
    """A path without `~`.

    Args:
        place: where it is set.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return expand_home(text)
    except InputError as error:
        raise InputError(f"{place}: {error.message}", "write the whole path") from error


def _absolute(name: str, text: str, file: Path) -> Path:
    """The root of a dataset in the file.

    Raises:
        InputError: it is not absolute.
    """
    path = _expand(text, f"{name} in {file}")
    if not path.is_absolute():
        raise InputError(
            f"{name}: {text} in {file} is not an absolute path",
            f"write the whole path, e.g. {name}: /data/{name}, or remove the line",
        )
    return path
