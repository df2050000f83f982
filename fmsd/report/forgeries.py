"""Results per forgery: every forgery of a dataset against all its real videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from fmsd.figures import merges
from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS
from fmsd.metrics.table import LEVELS
from fmsd.report.comparability import ColumnNotes
from fmsd.report.resamples import resample_rows
from fmsd.report.rows import Row
from fmsd.report.summary import with_interval_caption
from fmsd.report.tables import METRIC_NAMES, Table, results_table
from fmsd.report.tidy import with_intervals


@dataclass(frozen=True)
class ForgeryResults:
    """Results per forgery.

    Args:
        tidy: one value per line with run, seed, dataset and domain.
        tables: by level, a column per forgery, named DATASET/DOMAIN.
    """

    tidy: pl.DataFrame
    tables: dict[str, Table]


def forgery_results(
    rows: Sequence[Row], metric: str, notes: ColumnNotes, resamples: int | None
) -> ForgeryResults:
    """Computes results per forgery from the predictions of all rows.

    Args:
        notes: letters of the results on whole datasets.
        resamples: number of resamples for intervals, and for a caption that explains them; None
            for neither.
    """
    statistics = resample_rows(
        rows,
        metric,
        resamples or 0,
        forgery_metrics=[*METRICS, *THRESHOLD_METRICS],
        by_forgery=True,
    )
    columns = pl.format("{}/{}", "dataset", "domain")
    pairs = statistics.domains.select("dataset", columns.alias("column")).iter_rows()
    notes = notes.for_columns(pairs)
    tidy = statistics.domains.with_columns(columns.alias("dataset"), whole="dataset")
    tables = {
        level: results_table(tidy, metric, level, {}, statistics.samples, notes) for level in LEVELS
    }
    if resamples is not None:
        tables = {
            level: with_interval_caption(table, rows, resamples) for level, table in tables.items()
        }
        tidy = with_intervals(tidy, statistics.intervals)
    return ForgeryResults(tidy.with_columns(dataset="whole").drop("whole"), tables)


def plot_forgeries(table: Table) -> Figure:
    """Plots a table of forgeries as a heat map; inverted AUCs are framed."""
    values = [
        [row[column].value if column in row else float("nan") for column in table.columns]
        for row in table.cells.values()
    ]
    inverted = [
        (index, table.columns.index(column))
        for index, row in enumerate(table.cells.values())
        for column, cell in row.items()
        if cell.inverted
    ]
    name = "AUC" if table.metric == "auc" else METRIC_NAMES.get(table.metric, table.metric)
    return merges.plot_domain_matrix(list(table.cells), table.columns, values, name, inverted)
