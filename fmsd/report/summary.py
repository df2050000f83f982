"""Summary tables: a metric with intervals, all other metrics, differences from a baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from fmsd.metrics.hierarchical import MIN_SEEDS
from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS
from fmsd.metrics.table import LEVELS
from fmsd.report.comparability import ColumnNotes
from fmsd.report.rows import Row
from fmsd.report.tables import (
    LOWER_IS_BETTER,
    Means,
    Table,
    results_table,
)

SEEN, UNSEEN = "mean of the seen", "mean of the unseen"
"""Columns of means over the datasets with frames in some row's training data, and the others."""


def seen_unseen_means(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The columns of means over seen and over unseen datasets, with their datasets.

    A mean is left out if it is over one dataset, or if a row lacks one of its datasets.
    """
    trained = {name for row in rows for facts in row.facts().values() for name in facts["train"]}
    if "unknown" in trained:
        return {}
    datasets = dict.fromkeys(dataset for row in rows for dataset in row.prediction_files)
    means = {
        SEEN: [dataset for dataset in datasets if dataset in trained],
        UNSEEN: [dataset for dataset in datasets if dataset not in trained],
    }
    return {
        name: parts
        for name, parts in means.items()
        if len(parts) > 1
        and all(dataset in row.prediction_files for row in rows for dataset in parts)
    }


def all_metric_tables(
    tidy: pl.DataFrame, tables: Mapping[str, Table], metric: str, means: Means, notes: ColumnNotes
) -> dict[tuple[str, str], Table]:
    """The tables of all metrics by metric and level: the reported one first, video before frame.

    Args:
        tables: the tables of the reported metric by level.
    """
    levels = list(reversed(LEVELS))
    others = [
        name for name in (*METRICS, *THRESHOLD_METRICS) if name in tidy["metric"] and name != metric
    ]
    return {(metric, level): tables[level] for level in levels} | {
        (name, level): with_caption(results_table(tidy, name, level, means, {}, notes), "")
        for name in others
        for level in levels
    }


def with_interval_caption(table: Table, rows: Sequence[Row], resamples: int) -> Table:
    """Explains deviations and intervals in the caption."""
    parts = []
    counts = seed_counts(rows)
    if len(rows) > len(table.cells):
        parts.append("mean ± standard deviation over seeds")
    if resamples:
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
