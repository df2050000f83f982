"""Checks of a merger's coefficients."""

import math
from collections.abc import Sequence

from fmsd import checks
from fmsd.linalg import SVD


def check_coefficient_range(
    low: float = 0.0, high: float = math.inf, **coefficients: float
) -> None:
    """Checks that coefficients are finite numbers from `low` to `high`."""
    for name, value in coefficients.items():
        checks.check_range(f"merger.{name}", value, low, high)


def check_coefficient_choice(choices: Sequence[object], **settings: object) -> None:
    """Checks that settings of a merger are among their choices."""
    for name, value in settings.items():
        checks.check_choice(f"merger.{name}", value, choices)


def check_truncation(svd: SVD, least_energy: float) -> None:
    """Checks a merger's settings of `fmsd.linalg.truncate`."""
    check_coefficient_choice(("exact", "krylov"), svd=svd)
    check_coefficient_range(high=1.0, least_energy=least_energy)
