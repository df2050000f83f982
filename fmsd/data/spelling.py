"""File names in a dataset's lists and on disk: slashes, Unicode normal forms, case."""

import contextlib
import functools
import os
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from fmsd.data.frame import Problem
from fmsd.machine_errors import LOCALE_REMEDY

T = TypeVar("T")


def with_slashes(name: str) -> str:
    """A path with slashes in place of Windows' backslashes."""
    return name.replace("\\", "/")


def to_nfc(name: str) -> str:
    """A name in Unicode's composed form (NFC), as most lists have it; copies on a Mac have NFD."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def fold_case(name: str) -> str:
    """A name that equals all spellings of it in another case or Unicode normal form."""
    return to_nfc(to_nfc(name).casefold())


def escape_non_utf8(name: str | Path) -> str:
    """A name with escapes in place of bytes that are not UTF-8 and could not be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether a name can be encoded as UTF-8; file names on Linux are arbitrary bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def encoding_fault(name: str | Path, remedy: str) -> tuple[str, str]:
    """What a name that fails `is_utf8` is (`not UTF-8`), and what to do about it.

    Where the locale's encoding is ASCII, Python does not read a name that is UTF-8 as such.

    Args:
        remedy: for a name that is not UTF-8.
    """
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return "not UTF-8", remedy
    return "not ASCII, the encoding of this locale", LOCALE_REMEDY


def path_finder(normalize: Callable[[str], str]) -> Callable[[str], list[str]]:
    """A function that finds the paths on disk whose parts equal those of a path when normalized.

    Each folder is listed once.

    Args:
        normalize: maps names that may stand for each other to one: `to_nfc`, `fold_case`.
    """

    @functools.cache
    def inside(folder: str) -> Mapping[str, list[str]]:
        paths: dict[str, list[str]] = {}
        for place in [folder] if os.path.isdir(folder) else places(folder):  # noqa: PTH112  many paths pass
            with contextlib.suppress(OSError):
                for name in os.listdir(place):  # noqa: PTH208
                    paths.setdefault(normalize(name), []).append(f"{place.rstrip('/')}/{name}")
        return paths

    def places(path: str) -> list[str]:
        folder, slash, name = path.rpartition("/")
        return inside(folder or slash).get(normalize(name), []) if name else []

    return places


class ListedPaths:
    """Finds the files of a list on disk, also with other slashes or in another normal form.

    Args:
        where: the list, for messages.
    """

    def __init__(self, where: Path) -> None:
        self.where, self.slashes, self.forms = where, 0, 0
        self._places = path_finder(to_nfc)

    def locate(self, root: Path, name: str) -> Path:
        """The path of a listed file or folder below a root, whether it exists or not."""
        path = root / name
        if "\\" in name and not path.exists():
            path = root / (name := self.with_slashes(name))
        if name.isascii() or path.exists() or len(others := self._places(str(path))) != 1:
            return path
        self.forms += 1
        return Path(others[0])

    def with_slashes(self, name: str) -> str:
        """A listed path with slashes; paths with backslashes are counted."""
        self.slashes += "\\" in name
        return with_slashes(name)

    def problems(self) -> list[Problem]:
        """The problems of the list: paths that were found in another spelling."""
        return [
            *backslash_problems(self.where, self.slashes),
            *normal_form_problems(self.where, self.forms),
        ]


def backslash_problems(where: Path, count: int) -> list[Problem]:
    """The problem of a list that writes some paths with backslashes."""
    what = f"{where} writes {count} of its paths with backslashes"
    return [Problem("slashes", what, "they are read as slashes")] if count else []


def normal_form_problems(where: Path | str, count: int) -> list[Problem]:
    """The problem of a list that writes some names in another normal form than the disk."""
    what = f"{where} writes {count} of its names in another Unicode normal form than the disk"
    return [Problem("normal forms", what, "they are taken for the same names")] if count else []


def missing_problems(
    listed: Iterable[str],
    on_disk: Container[str],
    where: Path | str,
    folder: Path,
    domains: Mapping[str, str] | None = None,
) -> Iterator[Problem]:
    """A problem for each name of a list that is not on disk.

    Args:
        on_disk: the names on disk.
        where: the list, for messages.
        folder: the folder in which the names should be.
        domains: the domain of each name, where it is known.
    """
    for name in listed:
        if name not in on_disk:
            what = f"{where} lists {name}, which {folder} does not hold"
            domain = (domains or {}).get(name)
            yield Problem("missing", what, "complete the copy", domain=domain)


def match_names(
    listed: Mapping[str, T],
    on_disk: Collection[str],
    where: Path | str,
    folder: Path,
    domains: Mapping[str, str] | None = None,
) -> tuple[dict[str, T], list[Problem]]:
    """Renames the keys of a list to the names on disk, across Unicode normal forms.

    Args:
        listed: values by listed name.
        on_disk: the names on disk.
        where: the list, for messages.
        folder: the folder in which the names should be.
        domains: the domain of each listed name, where it is known.

    Returns:
        The values by name on disk, and problems: names that are missing on disk, and the number of
        names in another normal form.
    """
    lacking = {name for name in listed if name not in on_disk}
    spellings: dict[str, list[str]] = {}
    for name in on_disk if lacking else ():
        if name not in listed:
            spellings.setdefault(to_nfc(name), []).append(name)
    renamed = {
        name: others[0] for name in lacking if len(others := spellings.pop(to_nfc(name), [])) == 1
    }
    missing = missing_problems(
        (name for name in listed if name not in renamed), on_disk, where, folder, domains
    )
    return {renamed.get(name, name): about for name, about in listed.items()}, [
        *missing,
        *normal_form_problems(where, len(renamed)),
    ]
