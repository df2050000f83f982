"""The tidy results of all rows: one value per line, with label, seed and settings."""

from collections.abc import Sequence

import polars as pl

from fmsd.report.rows import Row


def tidy_results(rows: Sequence[Row]) -> pl.DataFrame:
    """The results of all rows in one table."""
    return pl.concat([with_row(row.results, row) for row in rows], how="diagonal")


def with_row(table: pl.DataFrame, row: Row) -> pl.DataFrame:
    """Adds the columns run (the name), seed, settings and overrides (those that vary)."""
    return table.with_columns(
        run=pl.lit(row.label),
        seed=pl.lit(row.seed, pl.Int64),
        settings=pl.lit(row.settings, pl.String),
        overrides=pl.lit(row.setting),
    )


def with_intervals(tidy: pl.DataFrame, intervals: pl.DataFrame) -> pl.DataFrame:
    """Adds the columns low and high, null for values without an interval.

    Args:
        intervals: columns run, seed, dataset, level, metric, low, high.
    """
    return tidy.join(
        intervals,
        on=["run", "seed", "dataset", "level", "metric"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
