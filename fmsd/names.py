"""Checks whether names read from files are safe as names of files and folders.

The name of a dataset becomes `predictions/DATASET.parquet`; the id of a video,
`dataset/domain/compression/video`, becomes a folder below the `out` of an extraction.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from fmsd.errors import InputError
from fmsd.quoting import printable

LONGEST = 255
"""Bytes of a file name that every file system accepts."""

LONGEST_NAME = 200
"""Bytes of a name that is part of a longer file name, as in `heatmaps_NAME.png`."""

LONGEST_LABEL = 80
"""Characters of the name of a row in a report, at most."""

RELATIVE = "use a path relative to data.root, without its first /"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile("[\ud800-\udfff]")
"""Characters by which Python represents bytes of a file name that are not UTF-8."""
DRIVE = re.compile("[A-Za-z]:")


def name_fault(text: object, nested: bool = False) -> tuple[str, str] | None:
    """Why a text cannot be a file name, with the remedy; None if it can.

    Args:
        nested: whether it may be several names joined by `/`.
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
    for applies, what, remedy in checks:
        if applies:
            return what, remedy
    longest = LONGEST if nested else LONGEST_NAME
    faults = (_part_fault(part, longest) for part in text.split("/"))
    return next((fault for fault in faults if fault), None)


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
    """Rejects a text that cannot be a file name.

    Args:
        what: what it names, for the message: `dataset`.

    Raises:
        InputError: it cannot be one.
    """
    _refuse(text, what, name_fault(text))


@lru_cache(maxsize=4096)  # the frames of a video come one after the other
def check_names(dataset: str, domain: str, compression: str, video: str, pair: str = "") -> None:
    """Rejects names of a frame or video that cannot be file names.

    Raises:
        InputError: one of them cannot.
    """
    _check_kind(dataset, domain, compression)
    _refuse(video, "video id", name_fault(video, nested=True))
    if pair != "":
        _refuse(pair, "pair", name_fault(pair, nested=True))


@lru_cache(maxsize=4096)
def _check_kind(dataset: str, domain: str, compression: str) -> None:
    check_name(dataset, "dataset")
    check_name(domain, "domain")
    if compression != "":
        check_name(compression, "compression")


def check_distinct(ids: Iterable[str]) -> None:
    """Rejects ids that name the same folder, or one inside another's, on some file systems.

    Some ignore case, the encoding of accents, or blanks at the end of a name.

    Raises:
        InputError: there are two such ids.
    """
    by_folder: dict[str, str] = {}
    for text in ids:
        other = by_folder.setdefault(_folder_key(text), text)
        if other != text:
            raise InputError(
                f"The ids {other!r} and {text!r} would be one folder on a file system that ignores "
                "case, accents or blanks",
                "rename one of them",
            )
    for key, text in by_folder.items():
        for end in range(len(key)):
            if key[end] == "/" and (outer := by_folder.get(key[:end])):
                raise InputError(
                    f"The folder of the id {text!r} would lie in that of {outer!r}",
                    "rename one of them",
                )


def _folder_key(text: str) -> str:
    """An id without case, encoding of accents and blanks around names: equal for equal folders."""
    return "/".join(
        part.strip() for part in unicodedata.normalize("NFC", text.casefold()).split("/")
    )


def unfit_names(texts: Iterable[object], nested: bool = False) -> dict[object, tuple[str, str]]:
    """By text, why it cannot be a file name, with the remedy; texts that can are left out."""
    return {text: fault for text in texts if (fault := name_fault(text, nested))}


def _refuse(text: object, what: str, fault: tuple[str, str] | None) -> None:
    if fault is not None:
        shown = repr(text) if len(repr(text)) <= 100 else f"{repr(text)[:97]}..."
        raise InputError(f"The {what} {shown} {fault[0]}", fault[1])


def check_label(label: object, key: str = "label") -> None:
    """Rejects a text that cannot be the name of a row in a report.

    Args:
        label: None for no name.

    Raises:
        InputError: it is no text, blank, too long, or holds a control character.
    """
    if label is None:
        return
    if (
        isinstance(label, str)
        and label == label.strip() != ""
        and label.isprintable()
        and len(label) <= LONGEST_LABEL
    ):
        return
    shown = printable(str(label))
    raise InputError(
        f"{key}={shown if len(shown) <= 100 else f'{shown[:97]}...'} cannot name a row of a report",
        f"give one line of text of at most {LONGEST_LABEL} characters, without blanks at its ends",
    )
