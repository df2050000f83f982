"""The file of roots: a line `NAME: PATH` for each dataset."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import yaml

from fmsd.data.remote import check_address, is_remote
from fmsd.errors import InputError, reason
from fmsd.paths import expand_home
from fmsd.safe_yaml import LOADER, check_yaml

FILE = "FMSD_ROOTS"
"""The environment variable that names the file."""


def roots_file() -> Path | None:
    """`$FMSD_ROOTS`, or `fmsd/roots.yaml` in `$XDG_CONFIG_HOME` or in `~/.config`.

    Returns:
        The file; None if the default one does not exist.

    Raises:
        InputError: FMSD_ROOTS names no file, or a folder above the file is locked.
    """
    if chosen := os.environ.get(FILE):
        path = Path(expand(chosen, FILE))
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
        return Path(expand(shared, "XDG_CONFIG_HOME")) / "fmsd" / "roots.yaml"
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
    check_printable(name, f"A name in {file}")
    return name


def expand(text: str, place: str) -> str:
    """A path without `~`, or an address as it is.

    Args:
        place: where it is set.

    Raises:
        InputError: there is no such home folder, the path cannot be printed, or the address holds
            credentials.
    """
    check_printable(text, place)
    if is_remote(text):
        return check_address(text)
    try:
        return str(expand_home(text))
    except InputError as error:
        raise InputError(f"{place}: {error.message}", "write the whole path") from error


def check_printable(text: str, place: str) -> None:
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
    place = expand(text, f"{name} in {file}")
    if not (is_remote(place) or Path(place).is_absolute()):
        raise InputError(
            f"{name}: {text} in {file} is not an absolute path",
            f"write the whole path, e.g. {name}: /data/{name}, or remove the line",
        )
    return place
