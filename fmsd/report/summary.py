"""Summary tables: a metric with intervals, all other metrics, differences from a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS
from fmsd.metrics.table import LEVELS
from fmsd.report.columns import with_groups
from fmsd.report.comparability import ColumnNotes
from fmsd.report.rows import Row
from fmsd.report.stamped import PIXELS
from fmsd.report.tables import (
    LOWER_IS_BETTER,
    Means,
    ResampledMetrics,
    Table,
    differences_table,
    results_table,
)


def all_metric_tables(
    tidy: pl.DataFrame,
    tables: Mapping[str, Table],
    metric: str,
    means: Means,
    notes: ColumnNotes,
    groups: Mapping[str, Sequence[str]],
) -> dict[tuple[str, str], Table]:
    """The tables of all metrics by metric and level: the reported one first, video before frame.

    Args:
        tables: the tables of the reported metric by level.
        groups: of the datasets, see `fmsd.report.columns.dataset_groups`.
    """
    levels = list(reversed(LEVELS))
    others = [
        name for name in (*METRICS, *THRESHOLD_METRICS) if name in tidy["metric"] and name != metric
    ]
    return {(metric, level): tables[level] for level in levels} | {
        (name, level): with_caption(
            with_groups(results_table(tidy, name, level, means, {}, notes), groups), ""
        )
        for name in others
        for level in levels
    }


def with_interval_caption(table: Table, rows: Sequence[Row], resamples: int) -> Table:
    """Explains deviations and intervals in the caption."""
    parts = []
    if sum(row.label in table.cells for row in rows) > len(table.cells):
        parts.append("mean ± standard deviation over seeds")
    if resamples:
        parts.append(f"in brackets the 95 % interval over {resamples:,} resamples of the videos")
    return with_caption(table, "; ".join(parts))


def with_caption(table: Table, text: str) -> Table:
    """Sets the caption, with a remark for metrics of which low values are good."""
    remark = "lower is better" if table.metric in LOWER_IS_BETTER else ""
    caption = "; ".join(part for part in (text, remark) if part)
    return replace(table, caption=caption and f"{caption[0].upper()}{caption[1:]}.")


def baseline_table(
    table: Table, baseline: str, means: Means, samples: ResampledMetrics, rows: Sequence[Row]
) -> Table:
    """The differences of all rows from a baseline, where the test videos are the same.

    Args:
        baseline: the label of a row.
        samples: of the table's metric.
    """

    def identities(label: str, dataset: str) -> set[tuple[str, str] | None]:
        return {
            row.video_identity(dataset) if dataset in row.prediction_files else None
            for row in rows
            if row.label == label
        }

    def pixels_of(label: str, dataset: str) -> set[str]:
        return {
            pixels
            for row in rows
            if row.label == label and dataset in row.prediction_files
            if (pixels := row.facts()[row.stamps_of(dataset)[0]].get(PIXELS)) is not None
        }

    def same_videos(label: str, dataset: str) -> bool:
        own = identities(label, dataset)
        pixels = pixels_of(label, dataset) | pixels_of(baseline, dataset)
        return (
            len(own) == 1
            and None not in own
            and own == identities(baseline, dataset)
            and len(pixels) <= 1
        )

    differences = differences_table(table, baseline, means, samples, same_videos)
    method = (
        "paired bootstrap over videos: difference, 95 % interval and two-sided p, of these "
        "trained weights, not of other seeds"
    )
    return with_caption(
        differences, f"{method}{_comparisons(differences)}; - where the videos are not the same"
    )


def _comparisons(table: Table) -> str:
    """The number of comparisons and their correction, as a part of a caption."""
    per_column = [
        sum(column in row and row[column].p is not None for row in table.cells.values())
        for column in table.columns
    ]
    counts = [count for count in per_column if count]
    if not counts:
        return ""
    if max(counts) == 1:
        return f"; one comparison in a column, {sum(counts)} in this table"
    number = str(max(counts))
    if min(counts) < max(counts):
        number = f"{min(counts)} to {number}"
    return (
        f"; p corrected by Holm's method for the {number} comparisons of a column, of "
        f"{sum(counts)} in this table"
    )
