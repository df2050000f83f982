"""Result tables as they are read: a column per dataset, counts, Markdown. Needs no torch."""

import re
from collections.abc import Sequence

import polars as pl

from fmsd.metrics.coverage import coverage_text


def pivot_datasets(tidy: pl.DataFrame, metric: str = "auc") -> pl.DataFrame:
    """One metric with a column per dataset and a row per level."""
    return tidy.filter(metric=metric).pivot(
        "dataset", index="level", values="value", maintain_order=True
    )


def format_video_counts(tidy: pl.DataFrame) -> dict[str, str]:
    """The numbers of videos of every dataset as text: `178 real, 340 fake videos`.

    Rows with different numbers give a range.
    """
    return {
        str(dataset): f"{_span(own['n_real_videos'])} real, "
        f"{_span(own['n_videos'] - own['n_real_videos'])} fake videos"
        for (dataset,), own in tidy.group_by("dataset", maintain_order=True)
    }


def format_coverage(tidy: pl.DataFrame) -> list[str]:
    """A phrase for each dataset and level in which not every video or frame has a score.

    For example `celebdf_v2, videos: 510 of 518 scored, 8 no face`. Results of earlier versions do
    not count them.
    """
    if "n_expected" not in tidy.columns:
        return []
    counts = tidy.drop_nulls("n_expected").filter(pl.col("n_scored") < pl.col("n_expected"))
    return list(
        dict.fromkeys(
            f"{row['dataset']}, {row['level']}s: {coverage_text(row)}"
            for row in counts.iter_rows(named=True)
        )
    )


def _span(values: pl.Series) -> str:
    """The value of a series, or its range if there are several."""
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def escape_markdown(text: str) -> str:
    """Text in one line with Markdown's and HTML's special characters escaped, for a table cell."""
    return (
        re.sub(r"[\\`*|]", lambda match: f"\\{match[0]}", " ".join(text.split()))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
