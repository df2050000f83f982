"""Names that come from files, and become names of files: which of them are safe to use below a folder.

A dataset's name is that of `predictions/DATASET.parquet`, a video's id
`dataset/domain/compression/video` a folder below the `out` of an extraction.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from fmsd.errors import InputError

LONGEST = 255
"""Bytes of a file's name that every file system takes."""

LONGEST_NAME = 200
"""Bytes of a name that a longer file name is made of: `heatmaps_NAME.png`, and what it is called while it is written."""

RELATIVE = "use a path relative to data.root, without its first /"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile("[\ud800-\udfff]")
"""How Python shows the bytes of a file's name that is not written in UTF-8."""
DRIVE = re.compile("[A-Za-z]:")


def name_fault(text: object, nested: bool = False) -> tuple[str, str] | None:
    """What makes a text unfit for the name of a file, and the remedy; None where it is fit.

    Args:
        nested: whether it may be several names, joined by `/`.
    """
    if not isinstance(text, str):
        return "is no text", "write it as text"
    if SURROGATE.search(text):
        return "is not written in UTF-8", "rename it"
    checks = (
        (not text, "is empty", "give it a name"),
        (CONTROL.search(text), "holds a control character or a line break", "take it out"),
        (
            text.startswith("/") or DRIVE.match(text),
            "is an absolute path",
            RELATIVE if nested else "use a plain name",
        ),
        ("\\" in text, "holds a backslash", "use / instead" if nested else "use a plain name"),
        (
            "/" in text and not nested,
            "holds a slash, but is the name of a file",
            "use a plain name, for example with _ instead",
        ),
    )
    if found := next(((what, remedy) for holds, what, remedy in checks if holds), None):
        return found
    return next(
        (
            found
            for part in text.split("/")
            if (found := _part_fault(part, LONGEST if nested else LONGEST_NAME))
        ),
        None,
    )


def _part_fault(part: str, longest: int) -> tuple[str, str] | None:
    if not part:
        return "has an empty part", "write one / between its parts, and none at its end"
    if part in (".", ".."):
        return f"holds the part {part!r}, which leads to another folder", "leave that part out"
    if part.startswith("."):
        return "is hidden by a leading dot", "leave the dot out"
    if len(part.encode()) > longest:
        return f"is longer than {longest} bytes", "shorten it"
    return None


def check_name(text: object, what: str) -> None:
    """Refuses a text that cannot be the name of a file.

    Args:
        what: what it names, for the sentence: `dataset`.

    Raises:
        InputError: it cannot.
    """
    _refuse(text, what, name_fault(text))


@lru_cache(maxsize=4096)  # the frames of a video come one after the other
def check_names(dataset: str, domain: str, compression: str, video: str) -> None:
    """Refuses the names of a frame or video that cannot become names of files.

    Raises:
        InputError: one of them cannot.
    """
    _check_kind(dataset, domain, compression)
    _refuse(video, "video id", name_fault(video, nested=True))


@lru_cache(maxsize=4096)
def _check_kind(dataset: str, domain: str, compression: str) -> None:
    check_name(dataset, "dataset")
    check_name(domain, "domain")
    if compression != "":
        check_name(compression, "compression")


def check_distinct(ids: Iterable[str]) -> None:
    """Refuses ids of which two would be one folder, or one a folder inside the other's, on some file system.

    Some tell neither case nor the ways to write an accent, nor blanks at the end of a name.

    Raises:
        InputError: there are two such ids.
    """
    known: dict[str, str] = {}
    for text in ids:
        other = known.setdefault(_folded(text), text)
        if other != text:
            raise InputError(
                f"The ids {other!r} and {text!r} would be one folder where case, accents or "
                "blanks are not told apart",
                "rename one of them",
            )
    for key, text in known.items():
        for end in range(len(key)):
            if key[end] == "/" and (outer := known.get(key[:end])):
                raise InputError(
                    f"The folder of the id {text!r} would lie in that of {outer!r}",
                    "rename one of them",
                )


def _folded(text: str) -> str:
    """An id as a file system reads it that tells neither case, nor ways to write an accent, nor blanks at the end of a name."""
    return "/".join(
        part.strip() for part in unicodedata.normalize("NFC", text.casefold()).split("/")
    )


def unfit_names(texts: Iterable[object], nested: bool = False) -> dict[object, tuple[str, str]]:
    """Those of some distinct texts that cannot be names of files, each with what is wrong and the remedy."""
    return {text: found for text in texts if (found := name_fault(text, nested))}


def _refuse(text: object, what: str, found: tuple[str, str] | None) -> None:
    if found is not None:
        shown = repr(text) if len(repr(text)) <= 100 else f"{repr(text)[:97]}..."
        raise InputError(f"The {what} {shown} {found[0]}", found[1])
