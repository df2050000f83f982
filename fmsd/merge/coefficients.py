"""Checks of a merger's coefficients."""

import math
from collections.abc import Sequence

from fmsd.errors import InputError
from fmsd.linalg import SVD


def check_range(low: float = 0.0, high: float = math.inf, **coefficients: float) -> None:
    """Checks that coefficients are finite numbers from `low` to `high`."""
    for name, value in coefficients.items():
        if (
            isinstance(value, (str, bool))
            or value is None
            or not low <= value <= high
            or math.isinf(value)
        ):
            limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise InputError(f"merger.{name}={value} is out of range", f"give a number {limits}")


def check_choice(choices: Sequence[object], **settings: object) -> None:
    """Checks that settings of a merger are among their choices."""
    for name, value in settings.items():
        if value not in choices:
            raise InputError(
                f"merger.{name}={value} is unknown", f"choose one of {', '.join(map(str, choices))}"
            )


def check_truncation(svd: SVD, least_energy: float) -> None:
    """Checks a merger's settings of `fmsd.linalg.truncate`."""
    check_choice(("exact", "krylov"), svd=svd)
    check_range(high=1.0, least_energy=least_energy)
