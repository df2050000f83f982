"""Where datasets lie: roots that are set once, in environment variables or in one file.

A file of `conf/data` looks up its root by `root: ${root:NAME}`, or by `${root:NAME,SHARED}` where
the dataset may also lie in a folder that it shares with others.
"""

import difflib
import functools
import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fmsd.cli.conf_files import choice_file, choices, dotted_values, read_conf_file
from fmsd.data.remote import check_address, is_remote
from fmsd.errors import InputError, reason
from fmsd.paths import expand_home
from fmsd.safe_yaml import LOADER, check_yaml

log = logging.getLogger(__name__)

FILE = "FMSD_ROOTS"
"""The environment variable that names the file."""

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
            return Root(_expand(value, variable(key)), variable(key), key)
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
                log.warning("%s names %s, which is no dataset: did you mean %s?", file, other, name)
        return None
    if is_lost(root):
        raise InputError(
            f"{root.place}, the root of {name} by {root}, is no folder",
            f"correct it there, or give data.root=PATH (data.roots.{name}=PATH for a test dataset)",
        )
    return root.place


def is_lost(root: Root) -> bool:
    """Whether a root is no folder, or lies in one that cannot be read; an address is not tried."""
    if root.folder is None:
        return False
    return not os.path.isdir(root.folder)  # noqa: PTH112  Path.is_dir raises for the latter


def roots_file() -> Path | None:
    """`$FMSD_ROOTS`, or `fmsd/roots.yaml` in `$XDG_CONFIG_HOME` or in `~/.config`.

    Returns:
        The file; None if the default one does not exist.

    Raises:
        InputError: FMSD_ROOTS names no file, or a folder above the file is locked.
    """
    if chosen := os.environ.get(FILE):
        path = Path(_expand(chosen, FILE))
        if not _is_file(path, f"{FILE}={path}", "correct it, or unset it"):
            raise InputError(f"{FILE}={path} is no file", "correct it, or unset it")
        return path
    path = default_file()
    remedy = f"make its folder readable, or set XDG_CONFIG_HOME or {FILE} to another place"
    return path if path is not None and _is_file(path, str(path), remedy) else None


def _is_file(path: Path, name: str, remedy: str) -> bool:
    """Whether a file is there.

    Args:
        name, remedy: for the message.

    Raises:
        InputError: that cannot be found out.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror})", remedy) from error


def default_file() -> Path | None:
    """The file of roots without FMSD_ROOTS; None if there is no home folder.

    Raises:
        InputError: XDG_CONFIG_HOME is no text that can be printed.
    """
    shared = os.environ.get("XDG_CONFIG_HOME", "")  # its standard ignores relative paths
    if shared.startswith("/"):
        return Path(_expand(shared, "XDG_CONFIG_HOME")) / "fmsd" / "roots.yaml"
    try:
        home = expand_home("~/.config")
    except InputError:
        return None
    return home / "fmsd" / "roots.yaml"


def read_roots(file: Path) -> dict[str, str]:
    """The roots in a file: a line `NAME: PATH` or `NAME: ADDRESS` for each dataset.

    Raises:
        InputError: it cannot be read, is no such list, names a dataset twice, or has a path that is
            not absolute.
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
        node = yaml.compose(text, LOADER)
    except InputError as error:
        raise InputError(error.message, remedy) from error
    except yaml.YAMLError as error:  # several documents, which --- separates
        raise InputError(f"{file} is no list of roots ({reason(error)})", remedy) from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{file} is no list of roots", remedy)
    roots: dict[str, str] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            line = key.start_mark.line + 1
            raise InputError(f"Line {line} of {file} is not of the form NAME: PATH", remedy)
        roots[_unique(key.value, roots, file)] = _absolute(key.value, value.value, file)
    return roots


def _unique(name: str, before: Mapping[str, str], file: Path) -> str:
    """The name of a dataset in the file, which need not be known here.

    It may be one of `--config-dir`, of a plugin that is not installed here, or misspelt: `fmsd
    roots` shows it.

    Raises:
        InputError: it cannot be printed, or the file named it before.
    """
    if name in before:
        raise InputError(f"{file} has {name} twice", "remove one of the lines")
    _check_printable(name, f"A name in {file}")
    return name


def nearest_dataset(name: str) -> str | None:
    """The dataset that a misspelt name may mean; None if all are far from it."""
    spelling = {_variable(known): known for known in datasets()}
    close = difflib.get_close_matches(_variable(name), list(spelling), n=1, cutoff=0.8)
    return spelling[close[0]] if close else None


def _expand(text: str, place: str) -> str:
    """A path without `~`, or an address as it is.

    Args:
        place: where it is set.

    Raises:
        InputError: there is no such home folder, the path cannot be printed, or the address holds
            credentials.
    """
    _check_printable(text, place)
    if is_remote(text):
        return check_address(text)
    try:
        return str(expand_home(text))
    except InputError as error:
        raise InputError(f"{place}: {error.message}", "write the whole path") from error


def _check_printable(text: str, place: str) -> None:
    """Rejects control characters, which steer a terminal, and bytes that are not UTF-8.

    Raises:
        InputError: the text has some.
    """
    if not text.isprintable():
        raise InputError(
            f"{place} holds characters that cannot be printed ({text!r})", "take them out"
        )


def _absolute(name: str, text: str, file: Path) -> str:
    """The root of a dataset in the file.

    Raises:
        InputError: it is not absolute.
    """
    place = _expand(text, f"{name} in {file}")
    if not (is_remote(place) or Path(place).is_absolute()):
        raise InputError(
            f"{name}: {text} in {file} is not an absolute path",
            f"write the whole path, e.g. {name}: /data/{name}, or remove the line",
        )
    return place
