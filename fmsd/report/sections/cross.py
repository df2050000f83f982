"""The section on cross-AUC: reals of one dataset against the fakes of another one."""

import itertools

from fmsd.metrics.cross_auc import CrossAuc, Estimate
from fmsd.metrics.delong import auc_interval
from fmsd.metrics.interval import MIN_VIDEOS
from fmsd.report import html
from fmsd.report.folded import folded
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import number_table
from fmsd.report.tables import Cell, Table

POOLED = "reals of all"
"""The row of a matrix in which the reals of all datasets are pooled."""


def cross_section(overview: Overview) -> Section | None:
    """Means within and across datasets of each row, and its matrix of all pairs."""
    crossed = {
        label: found.only([name for name in overview.datasets if name in found.datasets])
        for label, found in overview.resamples.videos.cross.items()
        if any(found.enough[pair] for pair in _apart(found))
    }
    if not crossed:
        return None
    rows, panes = [], {}
    for label, found in crossed.items():
        rows.append([label, *_summary(found)])
        panes[(label,)] = number_table(matrix_table(label, found), {}, heat=True)
    header = ["", "within datasets", "across datasets", "all reals pooled", "lowest pair"]
    body = html.paragraph(
        "AUC of videos with the reals of one dataset and the fakes of another one. Where it is far "
        "lower across datasets than within them, the scores of datasets are shifted against each "
        "other, and no threshold suits all of them. Means over seeds and over pairs; in brackets "
        "95 % intervals over videos, by DeLong's variance.",
        "quiet",
    )
    few = dict.fromkeys(phrase for found in crossed.values() for phrase in _too_few(found))
    if few:
        sentence = f"Left out, with fewer than {MIN_VIDEOS} videos: {', '.join(few)}."
        body += html.paragraph(sentence, "quiet")
    body += html.text_table("Mean AUC per video", header, rows, {0, 4})
    body += folded("Every pair of datasets", html.panes_by_choice(panes, ("row",)))
    return Section("cross", "Across datasets", body)


def _apart(found: CrossAuc) -> list[tuple[int, int]]:
    """The places of pairs of two different datasets."""
    return list(itertools.permutations(range(len(found.datasets)), 2))


def _summary(found: CrossAuc) -> list[str]:
    """The means of a row as text, and its lowest pair of different datasets."""
    pairs = [pair for pair in _apart(found) if found.enough[pair]]
    real, fake = min(pairs, key=lambda pair: found.matrix[pair])
    names = f"reals of {found.datasets[real]}, fakes of {found.datasets[fake]}"
    means = (found.within, found.across, found.pooled)
    return [*map(_text, means), f"{_text(found.pair(real, fake))}: {names}"]


def _text(estimate: Estimate) -> str:
    """A mean with its interval; `-` without a pair of enough videos."""
    cell = _cell(estimate)
    return "-" if cell is None else f"{cell.number} {cell.ends}"


def _cell(estimate: Estimate) -> Cell | None:
    """A cell with its interval; None without a pair of enough videos."""
    if estimate.value != estimate.value:
        return None
    return Cell(estimate.value, None, *auc_interval(*estimate))


def _too_few(found: CrossAuc) -> list[str]:
    """The classes of datasets with too few videos, with their counts."""
    return [
        f"{kind} of {name} ({count})"
        for kind, counts in (("reals", found.reals), ("fakes", found.fakes))
        for name, count in zip(found.datasets, counts, strict=True)
        if count < MIN_VIDEOS
    ]


def matrix_table(label: str, found: CrossAuc) -> Table:
    """The AUCs of all pairs of datasets: a row for the reals, a column for the fakes."""
    columns = [f"fakes of {name}" for name in found.datasets]
    rows = {
        f"reals of {name}": [found.pair(real, fake) for fake in range(len(columns))]
        for real, name in enumerate(found.datasets)
    } | {POOLED: [found.pooled_of(fake) for fake in range(len(columns))]}
    cells = {
        name: {
            column: cell
            for column, estimate in zip(columns, estimates, strict=True)
            if (cell := _cell(estimate)) is not None
        }
        for name, estimates in rows.items()
    }
    return Table(f"AUC per video of {label}", "auc", "video", columns, cells)
