"""The search for failing cases: Hypothesis in rounds, until the time or the cases are over."""

import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

FIXED = "fixed"
"""The value of FMSD_FUZZ in the tests: few cases, always the same. Otherwise it is minutes."""

FEW_SECONDS = 8.0
"""The longest time of a search with FMSD_FUZZ=fixed, which most end before."""

SHRINKING = 20.0
"""Seconds for making a failing case smaller."""

TARGETS = 9
"""The shares of all searches."""

SETTINGS: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "report_multiple_bugs": False,
    "phases": (Phase.generate, Phase.shrink),
    "suppress_health_check": list(HealthCheck),
}


def search(
    strategy: SearchStrategy[Any], check: Callable[[Any], object], cases: int, share: float = 1.0
) -> None:
    """Checks many cases, and fails with the smallest case of each fault.

    With FMSD_FUZZ=MINUTES the cases differ each time. Each fault is reported with the seed of its
    round; FMSD_FUZZ_SEED=SEED begins with that round.

    Args:
        check: raises for a fault.
        cases: the number of cases with FMSD_FUZZ=fixed, and in each round otherwise.
        share: of the minutes, relative to other searches.
    """
    mode = os.environ["FMSD_FUZZ"]
    seconds = FEW_SECONDS if mode == FIXED else 60 * float(mode) * share / TARGETS
    end = time.monotonic() + seconds
    seed = int(os.environ.get("FMSD_FUZZ_SEED", 0 if mode == FIXED else time.time_ns() % 2**32))
    first = seed
    count, faults = 0, {}
    while True:
        done, found = search_round(strategy, check, cases, seed, {*faults}, end)
        count += done
        faults |= found
        for fault in found.values():
            print(fault, flush=True)
        seed += 1
        if mode == FIXED or time.monotonic() > end:
            break
    print(f"\n{count} cases from seed {first}, {len(faults)} faults")
    if faults:
        raise AssertionError(f"{len(faults)} faults, see above")


def search_round(
    strategy: SearchStrategy[Any],
    check: Callable[[Any], object],
    cases: int,
    seed: int,
    known: set[str],
    end: float,
) -> tuple[int, dict[str, str]]:
    """Checks some cases; returns their number, and the new faults by their place.

    Args:
        known: places of faults that are passed over.
        end: the time from which on cases are passed over.
    """
    count, failed_at = 0, None
    failing: list[Any] = []

    def case(value: Any) -> None:
        nonlocal count, failed_at
        now = time.monotonic()
        if now > (end if failed_at is None else failed_at + SHRINKING) and value not in failing:
            return
        count += 1
        try:
            check(value)
        except Exception as error:
            if (place := fault_place(error)) in known:
                return
            failed_at = failed_at or now
            failing.append(value)
            error.add_note(f"the case: {repr(value)[:4000]}\nFMSD_FUZZ_SEED={seed}")
            found[place] = "".join(traceback.format_exception(error)[-14:])
            raise

    found: dict[str, str] = {}
    given = hypothesis.given(strategy)(case)
    rounds = hypothesis.settings(**SETTINGS, max_examples=cases)(given)
    try:
        hypothesis.seed(seed)(rounds)()
    except Exception as error:
        if not found:
            raise error
    return count, found


def fault_place(error: BaseException) -> str:
    """Class, file and line of an error, in the innermost file of fmsd."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if f"{os.sep}fmsd{os.sep}" in step.filename]
    step = (own or steps)[-1]
    if isinstance(error, AssertionError):  # of a judgement: its sentence tells faults apart
        return f"{type(error).__name__} {str(error)[-60:]}"
    return f"{type(error).__name__} {step.filename}:{step.lineno}"
