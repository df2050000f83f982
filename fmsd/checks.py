"""Checks of settings: numbers in a range, texts among choices."""

import math
from collections.abc import Iterable

from fmsd.errors import InputError


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
