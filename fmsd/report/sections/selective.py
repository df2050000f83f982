"""The section on selective prediction: errors if the least certain verdicts are withheld."""

import polars as pl

from fmsd.figures.selective import plot_risk_coverage
from fmsd.metrics.selective import risk_coverage
from fmsd.report import html
from fmsd.report.folded import folded
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import legend, number_table
from fmsd.report.tables import Cell, Table

AREAS = {"aurc": "AURC", "excess": "E-AURC", "risk": "Error rate"}
"""What tables show, by its column."""


def selective_section(overview: Overview) -> Section | None:
    """Risk-coverage curves, one dataset shown at a time, and the areas below them."""
    selective = overview.resamples.videos.selective
    if selective.is_empty():
        return None
    thresholds = {
        (run, dataset): threshold
        for run, dataset, threshold in selective.sort("seed", descending=True)
        .select("run", "dataset", "threshold")
        .iter_rows()
    }
    figures = {}
    for dataset, lines in overview.curves():
        curves = []
        for label, line in zip(overview.lines, lines, strict=True):
            threshold = thresholds.get((label, dataset))
            cut = 0.5 if threshold is None else threshold
            curve = None
            if line is not None and (label, dataset) in thresholds:
                score, truth = line.videos
                curve = risk_coverage(score.numpy(), truth.numpy(), cut)
            curves.append(curve)
        figures[(dataset,)] = html.figure_element(
            plot_risk_coverage(curves),
            f"Risk and coverage on {dataset}",
            overview.dataset_title(dataset),
        )
    body = html.paragraph(
        f"Of videos, by {overview.shown_runs}: the share of wrong verdicts (risk) if only the most "
        "certain share of all videos gets one (coverage). Certain is a score far from the "
        "threshold of highest balanced accuracy on the validation data, or from 0.5 without any. A "
        "line that falls to the left says that uncertain verdicts are those that are wrong.",
        "quiet",
    )
    body += legend(overview.lines, overview.notes) + html.panes_by_choice(figures, ("dataset",))
    panes = {
        (name,): number_table(_area_table(overview, selective, column), {})
        for column, name in AREAS.items()
    }
    note = html.paragraph(
        "AURC is the mean risk over all coverages; E-AURC what of it a better order of the same "
        "verdicts would spare. Means over seeds; lower is better. Both depend on the share of "
        "fakes, so columns cannot be compared.",
        "quiet",
    )
    body += folded("Areas below the curves", note + html.panes_by_choice(panes, ("value",)))
    return Section("selective", "Withheld verdicts", body)


def _area_table(overview: Overview, selective: pl.DataFrame, column: str) -> Table:
    """One value of all rows, a column per dataset."""
    cells: dict[str, dict[str, Cell]] = {}
    means = selective.group_by("run", "dataset", maintain_order=True).agg(
        pl.col(column).mean(), deviation=pl.col(column).std()
    )
    for label, dataset, value, deviation in means.iter_rows():
        cells.setdefault(label, {})[dataset] = Cell(value, deviation)
    return Table(
        f"{AREAS[column]} per video",
        column,
        "video",
        overview.datasets,
        cells,
        videos=overview.tables[overview.metric, "video"].videos,
    )
