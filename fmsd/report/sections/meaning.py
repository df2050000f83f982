"""Sections on what scores mean: calibration and thresholds, and the verdicts of tests at them."""

from collections import Counter
from collections.abc import Mapping
from html import escape

import polars as pl

from fmsd.metrics.score_meaning import (
    DEFAULT_AT,
    KINDS,
    RATES,
    ScoreMeaning,
    format_rate,
    selection_sentence,
    threshold_name,
    too_few_reals,
)
from fmsd.metrics.table import LEVELS
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import number_table
from fmsd.report.tables import Cell, Table
from fmsd.report.validation import run_name, run_names

ERRORS = {"log_loss": "log-loss", "brier": "Brier", "ece": "ECE"}
"""Measures of calibration, and their names."""

RATE_NAMES = {"false_positive": "false positive rate", "true_positive": "true positive rate"}


def meaning_section(overview: Overview) -> Section | None:
    """Calibration and thresholds of each run, by its validation data."""
    known = {name: meanings for name, meanings in overview.meanings.items() if meanings}
    if not known:
        return None
    choices = dict.fromkeys(
        selection_sentence(str(row.record.get("selection")))
        for name, row in zip(run_names(overview.rows), overview.rows, strict=True)
        if overview.meanings[name]
    )
    body = html.paragraph(
        "Everything here follows from the predictions of each run on its validation split, never "
        "from test data. Calibration maps a score to a probability; of four kinds (none, "
        "temperature, Platt, isotonic) each run has the one with the lowest log-loss in "
        "cross-validation over videos, and the errors before and after are those of videos that "
        "the map was not fitted to (slightly optimistic: the kind was chosen by the same figures). "
        f"{' '.join(choices)} On other datasets errors can be far higher, see the verdicts.",
        "quiet",
    )
    panes = {}
    for level in reversed(LEVELS):
        meanings = {name: meanings[level] for name, meanings in known.items()}
        panes[(level,)] = _calibration_table(meanings) + _threshold_table(meanings)
    body += html.panes_by_choice(panes, ("scores per",))
    if missing := [name for name, meanings in overview.meanings.items() if not meanings]:
        body += html.paragraph(
            f"Without predictions of a validation split: {'; '.join(missing)}.", "quiet"
        )
    return Section("meaning", "Calibration and thresholds", body)


def _calibration_table(meanings: Mapping[str, ScoreMeaning]) -> str:
    """The chosen map of each run, and its errors before and after."""
    pairs = (part for name in ERRORS.values() for part in (name, f"{name} after"))
    header = ["", "map", *pairs, "validation data"]
    rows = []
    for name, meaning in meanings.items():
        kind = KINDS[meaning.calibration.kind] if meaning.calibration else "too few videos"
        errors = [
            f"{part[key]:.3f}" if key in part else None
            for key in ERRORS
            for part in (meaning.before, meaning.after)
        ]
        rows.append([name, kind, *errors, meaning.videos.describe()])
    caption = "Errors on validation data before and after calibration, by cross-validation"
    return html.text_table(caption, header, rows, {0, 1, len(header) - 1})


def _threshold_table(meanings: Mapping[str, ScoreMeaning]) -> str:
    """The thresholds of each run, with their rates on the validation data."""
    rates = next(iter(meanings.values())).points
    rows = []
    for name, meaning in meanings.items():
        cells = []
        for rate, point in meaning.points.items():
            false, true = map(format_rate, meaning.error_rates(rate))
            note = "<small>no verdict</small>" if meaning.no_verdict(rate) else ""
            cells.append(
                f'<td data-value="{point.threshold:.9g}">{point.threshold:.4f}'
                f"<small>FPR {false}</small><small>TPR {true}</small>{note}</td>"
            )
        rows.append([escape(name), *cells])
    header = [
        "",
        *(f"{threshold_name(rate)}<small>FPR at most {100 * rate:g} %</small>" for rate in rates),
    ]
    caption = (
        "Thresholds <small>Below each its false and true positive rate on the validation data, "
        "with 95 % intervals over videos. no verdict: fewer real videos than one over the rate, or "
        "no fake found; fmsd predict then gives no verdict.</small>"
    )
    return html.sortable_table(caption, header, rows)


def with_threshold(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdicts of runs with enough real validation videos for the threshold."""
    enough = [
        not too_few_reals(RATES[at], reals)
        for at, reals in verdicts.select("at", "validation_reals").iter_rows()
    ]
    return verdicts.filter(pl.Series(enough, dtype=pl.Boolean))


def verdicts_section(overview: Overview) -> Section | None:
    """The false and true positive rate of each run on each test, at its thresholds."""
    if overview.resamples.verdicts.is_empty():
        return None
    verdicts = with_threshold(overview.resamples.verdicts)
    if verdicts.is_empty():
        return None
    counts = Counter(row.label for row in overview.rows)
    panes = {}
    thresholds = verdicts["at"].unique(maintain_order=True).to_list()
    for at in sorted(thresholds, key=lambda at: at != DEFAULT_AT):
        for kind, title in RATE_NAMES.items():
            table = _verdicts_table(overview, verdicts.filter(at=at), kind, counts)
            panes[at, title] = number_table(table, {})
    body = html.paragraph(
        "How the verdicts on the test videos would have been, had each run called fake what "
        "scores at least its threshold: fpr5 is the threshold at which at most 5 % of the real "
        "validation videos were called fake. A false positive rate far above that says that the "
        "threshold does not hold on the dataset. In brackets 95 % intervals over videos. Runs with "
        "too few real validation videos for a threshold are left out there.",
        "quiet",
    )
    body += html.panes_by_choice(panes, ("threshold", "rate"))
    return Section("verdicts", "Verdicts", body)


def _verdicts_table(
    overview: Overview, verdicts: pl.DataFrame, kind: str, counts: Mapping[str, int]
) -> Table:
    """One rate of all runs at one threshold, a column per dataset.

    Args:
        kind: a key of `RATE_NAMES`.
        counts: number of runs by label.
    """
    cells: dict[str, dict[str, Cell]] = {}
    for row in verdicts.iter_rows(named=True):
        name = run_name(row["run"], row["seed"], counts[row["run"]])
        value, low, high = (row[f"{kind}_{part}"] for part in ("rate", "low", "high"))
        cells.setdefault(name, {})[row["dataset"]] = Cell(value, low=low, high=high)
    return Table(
        f"{RATE_NAMES[kind].capitalize()} of videos at {verdicts['at'][0]}",
        kind,
        "video",
        [dataset for dataset in overview.datasets if dataset in verdicts["dataset"]],
        cells,
        videos=overview.tables[overview.metric, "video"].videos,
    )
