"""Labels by the words of a dataset; an ambiguous word is refused for the user to label."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Literal

from fmsd.data.frame import REAL
from fmsd.data.name_overrides import as_name
from fmsd.errors import InputError

Label = Literal[0, 1]
"""0 real, 1 fake."""

LABEL_WORDS: dict[str, Label] = {"real": 0, "fake": 1}
"""Label words, in lower case."""

NEGATIONS = frozenset({"not", "no", "non", "un", "never", "anti"})
"""Words that negate the word after them."""

LABEL_DIGITS: dict[str, Label] = {"0": 0, "1": 1}
"""Labels as digits, of datasets in which 1 is fake."""

DEFAULT_REAL_FOLDERS = ("real", "original", "0_real")
"""Names of folders of real images, unless the user gives others."""

_HINTS = ("real", "original", "pristine", "authentic", "youtube", "bonafide", "genuine")
"""Parts of names that suggest a folder of real images; the user must then label it."""


def parse_label(value: object, words: Mapping[str, Label]) -> Label | None:
    """The label of a value in a label file, by `words` in any case; None for other values."""
    return words.get(str(value).strip().casefold())


def label_from_last_word(name: str) -> Label | None:
    """The label of a compound name by its last word (`CelebDFv2_real`, `DFDC_Fake`).

    Returns:
        None where the last word is no label, or the name also has the opposite word or a negation.
    """
    folded = name.strip().casefold()
    *before, last = re.split(r"[\s_-]+", folded)
    label = LABEL_WORDS.get(last)
    contradicted = any(
        word in folded for word, other in LABEL_WORDS.items() if other != label
    ) or not NEGATIONS.isdisjoint(before)
    return None if contradicted else label


def suggests_real(name: str, real_folders: Collection[str]) -> bool:
    """Whether a folder's name suggests real images.

    It has a part like `original`, or differs from one of the `real_folders` only in case or blanks.
    """
    folded = _folded(name)
    letters = re.sub(r"[\W_]", "", folded)
    return any(hint in letters for hint in _HINTS) or folded in map(_folded, real_folders)


def forgery_domain(name: str, where: object) -> str:
    """The name, checked to be a valid domain of fakes.

    Args:
        where: the origin of the name, for the message.

    Raises:
        InputError: the name is empty or, apart from case and blanks, the real domain.
    """
    if _folded(name) in ("", REAL):
        raise InputError(
            f"{where} gives a fake the forgery {name!r}, which is not the name of one",
            "give the forgery another name there",
        )
    return name


def parse_labels(given: Mapping[object, object], key: str) -> dict[str, Label]:
    """The labels that the user assigns to names.

    Args:
        given: labels by name.
        key: the override that gives them.

    Raises:
        InputError: a value that is neither 0 (real) nor 1 (fake).
    """
    labels: dict[str, Label] = {}
    for name, value in given.items():
        label = parse_label(value, LABEL_WORDS | LABEL_DIGITS)
        if label is None:
            raise InputError(
                f"{key} gives {name} the label {value}", "labels are 0 (real) or 1 (fake)"
            )
        labels[as_name(name, key)] = label
    return labels


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()
