"""Result tables as they are read: a column per dataset, counts, Markdown. Needs no torch."""

import re
from collections.abc import Sequence

import polars as pl


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
