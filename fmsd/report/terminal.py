"""Results in the terminal."""

import polars as pl

from fmsd.console import show as show_table
from fmsd.metrics.table import format_video_counts, pivot_datasets


def show(table: pl.DataFrame, title: str, note: str) -> None:
    """Prints the AUC of every dataset, frames and videos apart, with the numbers of its videos."""
    aucs, sizes = pivot_datasets(table), format_video_counts(table)
    rows = [[str(line[0]), *map(told, line[1:])] for line in aucs.rows()]
    show_table(
        title,
        [f"{name}\n{sizes[name]}" if name in sizes else name for name in aucs.columns],
        rows,
        note,
    )


def show_robustness(table: pl.DataFrame) -> None:
    """Prints for each dataset the video AUC under every corruption, by severity, with their means."""
    aucs, sizes = table.filter(level="video", metric="auc"), format_video_counts(table)
    for (dataset,), own in aucs.group_by("dataset", maintain_order=True):
        clean = own.filter(severity=0)["value"].item()
        grid = own.filter(pl.col("severity") > 0).pivot(
            "severity", index="corruption", values="value", maintain_order=True
        )
        grid = grid.with_columns(mean=pl.mean_horizontal(pl.exclude("corruption")))
        lines = [*grid.rows(), *grid.select(pl.lit("mean"), pl.exclude("corruption").mean()).rows()]
        rows = [[str(line[0]), *map(told, line[1:])] for line in lines]
        show_table(
            f"Video AUC on {dataset} by severity; clean {told(clean)}",
            grid.columns,
            rows,
            sizes[str(dataset)],
        )


def told(value: float) -> str:
    """A number of a table."""
    return f"{value:.3f}"
