"""Checks of settings: numbers in a range, texts among choices."""

import math
import re
from collections.abc import Iterable

from fmsd.errors import InputError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""Bytes of a unit."""


def check_range(
    key: str, value: object, low: float = 0.0, high: float = math.inf, null: str = ""
) -> None:
    """Checks that a setting is a finite number from `low` to `high`.

    Args:
        key: the setting as the user writes it, for example `data.frames`.
        null: the meaning of None, for the remedy; without it None is refused, too.

    Raises:
        InputError: it is not; the remedy names the range.
    """
    if value is None and null:
        return
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not low <= value <= high
        or math.isinf(value)
    ):
        limits = f"at least {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
        meaning = f", or null for {null}" if null else ""
        raise InputError(f"{key}={value} is out of range", f"give {limits}{meaning}")


def check_dropout(dropout: float) -> None:
    """Checks that a method's dropout is a probability below 1.

    Raises:
        InputError: it is not.
    """
    if not 0 <= dropout < 1:
        raise InputError(
            f"method.dropout={dropout} is no probability below 1",
            "set it to 0 or more and less than 1",
        )


def check_factor(key: str, value: float, what: str, example: str) -> None:
    """Checks that the factor of a method's update is above 0.

    Args:
        key: the setting as the user writes it.
        what: the update, in the plural.
        example: a usual value, for the remedy.

    Raises:
        InputError: it is not.
    """
    if not value > 0:
        raise InputError(
            f"{key}={value} would switch the {what} off or turn them round",
            f"set it above 0, e.g. to {example}",
        )


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Checks that a setting is one of its choices.

    Args:
        key: the setting as the user writes it, for example `data.sampling`.

    Raises:
        InputError: it is not; the remedy names the choices.
    """
    known = list(choices)
    if value not in known:
        raise InputError(f"{key}={value} is unknown", f"choose one of {', '.join(map(str, known))}")


def parse_size(size: str | int, key: str = "size") -> int:
    """The number of bytes from `500M` or `1G`, in powers of 1024.

    Args:
        key: the setting as the user writes it.

    Raises:
        InputError: another format.
    """
    match = re.fullmatch(r"([1-9]\d*)([KMGT]?)", str(size))
    if match is None:
        raise InputError(f"{key}={size} is not a size", "give bytes, or a number like 500M or 1G")
    return int(match[1]) * UNITS[match[2]]
