"""The words by which datasets call a video real or fake. What they do not say is for the user to settle: nothing is guessed from a part of a word."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Literal

from fmsd.data.frame import REAL
from fmsd.data.overrides import as_name
from fmsd.errors import InputError

Label = Literal[0, 1]
"""0 real, 1 fake."""

WORDS: dict[str, Label] = {"real": 0, "fake": 1}
"""The words that say a label, in lower case."""

NEGATIONS = frozenset({"not", "no", "non", "un", "never", "anti"})
"""Words that turn the one after them round."""

NUMBERS: dict[str, Label] = {"0": 0, "1": 1}
"""The numbers that do, where a dataset writes 1 for fake."""

REALS = ("real", "original", "0_real")
"""Names of folders that hold real images unless the user names others."""

_HINTS = ("real", "original", "pristine", "authentic", "youtube", "bonafide", "genuine")
"""Parts of names that make it likely that a folder holds real images, which then has to be said."""


def stated(value: object, words: Mapping[str, Label]) -> Label | None:
    """The label that a value of a label file states by one of the given words, in any case; None where it is no such word."""
    return words.get(str(value).strip().casefold())


def last_word(name: str) -> Label | None:
    """The label that a compound name ends with (`CelebDFv2_real`, `DFDC_Fake`).

    Returns:
        None where it ends otherwise, or holds the opposite word or a negation, too.
    """
    folded = name.strip().casefold()
    *before, last = re.split(r"[\s_-]+", folded)
    label = WORDS.get(last)
    contradicted = any(
        word in folded for word, other in WORDS.items() if other != label
    ) or not NEGATIONS.isdisjoint(before)
    return None if contradicted else label


def sounds_real(name: str, reals: Collection[str]) -> bool:
    """Whether a folder's name suggests real images: by a part of it, or because it differs from one of the `reals` only in case or blanks."""
    folded = _folded(name)
    letters = re.sub(r"[\W_]", "", folded)
    return any(hint in letters for hint in _HINTS) or folded in map(_folded, reals)


def forgery(name: str, where: object) -> str:
    """The name as the domain of a fake.

    Args:
        where: what gives it, for the sentence.

    Raises:
        InputError: it is empty or that of the real domain, as far as case and blanks go.
    """
    if _folded(name) in ("", REAL):
        raise InputError(
            f"{where} gives a fake the forgery {name!r}, which names none",
            "give the forgery a name of its own there",
        )
    return name


def checked(given: Mapping[object, object], key: str) -> dict[str, Label]:
    """The labels that the user gives to names.

    Raises:
        InputError: a value that is neither 0 (real) nor 1 (fake).
    """
    found: dict[str, Label] = {}
    for name, value in given.items():
        label = stated(value, WORDS | NUMBERS)
        if label is None:
            raise InputError(
                f"{key} gives {name} the label {value}", "labels are 0 (real) or 1 (fake)"
            )
        found[as_name(name, key)] = label
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()
