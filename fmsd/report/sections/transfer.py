"""The section on calibration across datasets: what it is worth where it was not fitted."""

from collections import Counter

import polars as pl

from fmsd.metrics.score_meaning import DEFAULT_AT, wilson
from fmsd.report import html
from fmsd.report.folded import folded
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.sections.meaning import with_threshold
from fmsd.report.validation import run_name

ERRORS = ("ece", "calibrated_ece", "brier", "calibrated_brier")
"""Columns of errors before and after calibration."""

HEADER = (
    *("", "ECE", "ECE after", "Brier", "Brier after", "slope", "intercept"),
    *(f"FPR at {DEFAULT_AT}", f"TPR at {DEFAULT_AT}"),
)


def transfer_section(overview: Overview) -> Section | None:
    """Errors of calibration on each test set, before and after the calibration of each run."""
    found = overview.resamples.videos.recalibrated
    if found.is_empty():
        return None
    counts = Counter(row.label for row in overview.rows)
    names = found.select("run", "seed").unique(maintain_order=True).rows()
    panes = {
        (run_name(run, seed, counts[run]),): html.text_table(
            f"Videos of the test sets, by {run_name(run, seed, counts[run])}",
            HEADER,
            _lines(overview, found, run, seed),
        )
        for run, seed in names
    }
    overall = [
        [run_name(run, seed, counts[run]), *(f"{value:.3f}" for value in means)]
        for run, seed in names
        for means in _of(found, run, seed).select(pl.col(*ERRORS).mean()).iter_rows()
    ]
    body = html.paragraph(
        "What the calibration that was fitted on validation data is worth on the test sets: errors "
        "of the scores of videos, and after calibration. Both classes weigh equally, as in the "
        "calibration. Where the errors after are no lower, calibrate on data like those. Slope and "
        "intercept are those of a logistic regression on the calibrated scores: 1 and 0 where the "
        "calibration holds; a slope below 1 says that it is too certain, an intercept above 0 that "
        f"fakes are likelier than it says. {DEFAULT_AT} calls at most 5 % of the real validation "
        "videos fake; in brackets 95 % intervals over videos, and nothing where a run has too few "
        "real validation videos for that threshold.",
        "quiet",
    )
    body += html.text_table("Means over the test sets", HEADER[:5], overall)
    body += folded("Every test set", html.panes_by_choice(panes, ("run",)))
    return Section("transfer", "Calibration across datasets", body)


def _of(table: pl.DataFrame, run: str, seed: int | None) -> pl.DataFrame:
    """The rows of a run; seeds may be null."""
    return table.filter(pl.col("run") == run, pl.col("seed").eq_missing(seed))


def _lines(
    overview: Overview, found: pl.DataFrame, run: str, seed: int | None
) -> list[list[str | float | None]]:
    """A line per test set of a run."""
    verdicts = overview.resamples.verdicts.filter(at=DEFAULT_AT)
    at_default = _of(with_threshold(verdicts), run, seed)
    lines: list[list[str | float | None]] = []
    tests = _of(found, run, seed).to_dicts()
    for one in sorted(tests, key=lambda test: overview.datasets.index(test["dataset"])):
        rates: list[str | None] = [None, None]
        for verdict in at_default.filter(dataset=one["dataset"]).iter_rows(named=True):
            rates = [
                _rate(verdict["false_positives"], verdict["true_negatives"]),
                _rate(verdict["true_positives"], verdict["false_negatives"]),
            ]
        values = (f"{one[name]:.3f}" for name in (*ERRORS, "slope", "intercept"))
        lines.append([one["dataset"], *values, *rates])
    return lines


def _rate(called: int, others: int) -> str:
    """A share and its interval."""
    low, high = wilson(called, called + others)
    return f"{called / (called + others):.3f} [{low:.3f}, {high:.3f}]"
