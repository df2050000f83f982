"""Summary tables: a metric with intervals, all other metrics, differences from a baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from fmsd.metrics.hierarchical import MIN_SEEDS
from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS
from fmsd.metrics.table import LEVELS
from fmsd.report.columns import with_groups
from fmsd.report.comparability import ColumnNotes
from fmsd.report.rows import Row
from fmsd.report.tables import (
    LOWER_IS_BETTER,
    Means,
    ResampledMetrics,
    Table,
    results_table,
)


def level_tables(
    tidy: pl.DataFrame,
    metric: str,
    means: Means,
    samples: ResampledMetrics,
    notes: ColumnNotes,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Table]:
    """The main tables by level, see `fmsd.report.tables.results_table`.

    Args:
        groups: of the datasets, see `fmsd.report.columns.dataset_groups`.
    """
    return {
        level: with_groups(results_table(tidy, metric, level, means, samples, notes), groups)
        for level in LEVELS
    }


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
    counts = seed_counts([row for row in rows if row.label in table.cells])
    if sum(counts) > len(counts):
        parts.append("mean ± standard deviation over seeds")
    if resamples and counts:
        parts.append(interval_phrase(counts, resamples))
    return with_caption(table, "; ".join(parts))


def seed_counts(rows: Sequence[Row]) -> list[int]:
    """The numbers of seeds of the rows with one label, in no order."""
    return list(Counter(row.label for row in rows).values())


def interval_phrase(seeds: Sequence[int], resamples: int) -> str:
    """What the intervals of a table are over, see `fmsd.metrics.hierarchical`.

    Args:
        seeds: numbers of seeds of its rows.
    """
    what = "the videos"
    if max(seeds) >= MIN_SEEDS:
        what += (
            " and of the seeds together"
            if min(seeds) >= MIN_SEEDS
            else f", in rows of at least {MIN_SEEDS} seeds of the seeds, too"
        )
    return f"in brackets the 95 % interval over {resamples:,} resamples of {what}"


def with_caption(table: Table, text: str) -> Table:
    """Sets the caption, with a remark for metrics of which low values are good."""
    remark = "lower is better" if table.metric in LOWER_IS_BETTER else ""
    caption = "; ".join(part for part in (text, remark) if part)
    return replace(table, caption=caption and f"{caption[0].upper()}{caption[1:]}.")
