"""The suites that runs were tested on, and which of their datasets were left out."""

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fmsd.report import html
from fmsd.report.rows import Row

log = logging.getLogger(__name__)


class SuiteTest(NamedTuple):
    """The test of a row on a suite.

    Args:
        label, seed: of the row.
        suite: its name.
        tested: its datasets that the row has results on, from any of its tests.
        missing: its other datasets, whose roots were not given.
    """

    label: str
    seed: int | None
    suite: str
    tested: list[str]
    missing: list[str]


def suite_tests(rows: Iterable[Row]) -> Iterator[SuiteTest]:
    """Yields the suites of each row that its run or an evaluation names."""
    for row in rows:
        members: dict[str, dict[str, None]] = {}
        for record in row.records:
            if (suite := record.get("suite")) is not None:
                names = [*record["manifests"].get("test", {}), *record.get("skipped", [])]
                members.setdefault(suite, {}).update(dict.fromkeys(names))
        for suite, names in members.items():
            tested = [name for name in names if name in row.prediction_files]
            missing = [name for name in names if name not in row.prediction_files]
            yield SuiteTest(row.label, row.seed, suite, tested, missing)


def warn_of_incomplete_suites(rows: Iterable[Row]) -> None:
    """Warns of each suite of which datasets were left out, once for all rows with the same ones."""
    tests = [test for test in suite_tests(rows) if test.missing]
    for suite, missing in dict.fromkeys((test.suite, tuple(test.missing)) for test in tests):
        labels = dict.fromkeys(
            test.label for test in tests if (test.suite, tuple(test.missing)) == (suite, missing)
        )
        log.warning(
            "The suite %s is incomplete for %s: %s not tested.",
            suite,
            ", ".join(labels),
            f"{', '.join(missing)} {'was' if len(missing) == 1 else 'were'}",
        )


def suite_table(rows: Iterable[Row]) -> str:
    """The table of the suites, in HTML; empty where no run names one."""
    lines = [
        (
            test.label,
            test.seed,
            test.suite,
            ", ".join(test.tested),
            ", ".join(test.missing) or "none",
        )
        for test in suite_tests(rows)
    ]
    header = ["", "seed", "suite", "tested", "not tested"]
    return html.text_table("Suites", header, lines, {0, 2, 3, 4}) if lines else ""
