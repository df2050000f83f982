"""The section on cross-AUC: reals of one dataset against the fakes of another one."""

import numpy as np

from fmsd.metrics.cross_auc import CrossAuc
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
    crossed = overview.resamples.videos.cross
    if not crossed:
        return None
    rows, panes = [], {}
    for label, (datasets, found) in crossed.items():
        rows.append([label, *_summary(datasets, found)])
        panes[(label,)] = number_table(matrix_table(label, datasets, found), {}, heat=True)
    header = ["", "within datasets", "across datasets", "all reals pooled", "lowest pair"]
    body = html.paragraph(
        "AUC of videos with the reals of one dataset and the fakes of another one. Where it is far "
        "lower across datasets than within them, the scores of datasets are shifted against each "
        "other, and no threshold suits all of them. Means over seeds and over pairs.",
        "quiet",
    )
    body += html.text_table("Mean AUC per video", header, rows, {0, 4})
    body += folded("Every pair of datasets", html.panes_by_choice(panes, ("row",)))
    return Section("cross", "Across datasets", body)


def _summary(datasets: list[str], found: CrossAuc) -> list[str]:
    """The means of a row as text, and its lowest pair of different datasets."""
    apart = np.where(np.eye(len(datasets), dtype=bool), np.inf, found.matrix)
    real, fake = np.unravel_index(int(apart.argmin()), apart.shape)
    lowest = f"{apart[real, fake]:.3f}: reals of {datasets[real]}, fakes of {datasets[fake]}"
    means = (found.within, found.across, float(found.pooled.mean()))
    return [*(f"{value:.3f}" for value in means), lowest]


def matrix_table(label: str, datasets: list[str], found: CrossAuc) -> Table:
    """The AUCs of all pairs of datasets: a row for the reals, a column for the fakes."""
    lines = dict(zip([f"reals of {name}" for name in datasets], found.matrix, strict=True))
    columns = [f"fakes of {name}" for name in datasets]
    return Table(
        f"AUC per video of {label}",
        "auc",
        "video",
        columns,
        {
            name: {column: Cell(float(value)) for column, value in zip(columns, line, strict=True)}
            for name, line in {**lines, POOLED: found.pooled}.items()
        },
    )
