"""Names of files as lists write them and as disks hold them: slashes, Unicode normal forms, letters in another case."""

import contextlib
import functools
import os
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from fmsd.data.frame import Problem

T = TypeVar("T")


def slashed(name: str) -> str:
    """A path as Windows or other systems write it, with slashes."""
    return name.replace("\\", "/")


def composed(name: str) -> str:
    """A name in Unicode's composed form: lists have it mostly so, while copies made on a Mac have `u` and two dots where others have `ü`."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def caseless(name: str) -> str:
    """A name without the case of its letters and without its normal form."""
    return composed(composed(name).casefold())


def printable(name: str | Path) -> str:
    """A name with escapes in place of bytes that are no UTF-8, which could not be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; names on Linux are bytes of any kind."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def finder(alike: Callable[[str], str]) -> Callable[[str], list[str]]:
    """A function that gives the places on disk that a path may mean, each of its levels under another name. Each folder is listed once.

    Args:
        alike: what two names have in common that may stand for each other: `composed`, `caseless`.
    """

    @functools.cache
    def inside(folder: str) -> Mapping[str, list[str]]:
        held: dict[str, list[str]] = {}
        for place in [folder] if os.path.isdir(folder) else places(folder):  # noqa: PTH112  many paths pass
            with contextlib.suppress(OSError):
                for name in os.listdir(place):  # noqa: PTH208
                    held.setdefault(alike(name), []).append(f"{place.rstrip('/')}/{name}")
        return held

    def places(path: str) -> list[str]:
        folder, slash, name = path.rpartition("/")
        return inside(folder or slash).get(alike(name), []) if name else []

    return places


class Spelling:
    """The places of listed files, where a name that is not there byte for byte may be there in another normal form or with other slashes.

    Args:
        where: the list, for the sentence.
    """

    def __init__(self, where: Path) -> None:
        self.where, self.slashes, self.forms = where, 0, 0
        self._places = finder(composed)

    def place(self, root: Path, name: str) -> Path:
        """Where a listed file or folder lies below a root, or should lie."""
        path = root / name
        if "\\" in name and not path.exists():
            path = root / (name := self.slashed(name))
        if name.isascii() or path.exists() or len(others := self._places(str(path))) != 1:
            return path
        self.forms += 1
        return Path(others[0])

    def slashed(self, name: str) -> str:
        """A listed path with slashes."""
        self.slashes += "\\" in name
        return slashed(name)

    def problems(self) -> list[Problem]:
        """What was read otherwise than it is written."""
        return [*backslashes(self.where, self.slashes), *other_forms(self.where, self.forms)]


def backslashes(where: Path, count: int) -> list[Problem]:
    """The problem of a list that writes some paths with backslashes."""
    return (
        [
            Problem(
                "slashes",
                f"{where} writes {count} of its paths with backslashes",
                "they are read as slashes",
            )
        ]
        if count
        else []
    )


def other_forms(where: Path | str, count: int) -> list[Problem]:
    """The problem of a list that writes some names in another normal form than the disk."""
    what = f"{where} writes {count} of its names in another Unicode normal form than the disk"
    return [Problem("normal forms", what, "they are taken for the same names")] if count else []


def absent(
    listed: Iterable[str], held: Container[str], where: Path | str, folder: Path
) -> Iterator[Problem]:
    """A problem for each name of a list that the copy does not hold.

    Args:
        where: the list, for the sentence.
        folder: where the videos should be.
    """
    for name in listed:
        if name not in held:
            yield Problem(
                "missing",
                f"{where} lists {name}, which {folder} does not hold",
                "complete the copy",
            )


def matched(
    listed: Mapping[str, T], held: Collection[str], where: Path | str, folder: Path
) -> tuple[dict[str, T], list[Problem]]:
    """A list with its names as the disk has them, and what there is to report about it: names that the disk lacks or writes in another normal form.

    Args:
        listed: names, with what is said of them.
        held: the names on disk.
        where: the list, for the sentences.
        folder: where they should lie.
    """
    lacking = {name for name in listed if name not in held}
    spellings: dict[str, list[str]] = {}
    for name in held if lacking else ():
        if name not in listed:
            spellings.setdefault(composed(name), []).append(name)
    renamed = {
        name: others[0] for name in lacking if len(others := spellings.pop(composed(name), [])) == 1
    }
    missing = absent((name for name in listed if name not in renamed), held, where, folder)
    return {renamed.get(name, name): about for name, about in listed.items()}, [
        *missing,
        *other_forms(where, len(renamed)),
    ]
