"""Figures of robustness: AUC under image corruptions."""

import math
from collections.abc import Sequence

import polars as pl
from matplotlib.figure import Figure

from fmsd.figures.style import canvases, line_style, literal_text

MARKERS = "os^vDP*X"


def plot_robustness(table: pl.DataFrame, lines: Sequence[str] | None = None) -> Figure:
    """Plots the video AUC by severity, 0 for clean images: a panel per corruption.

    Args:
        table: tidy results with the columns `corruption` and `severity`; clean rows have severity
            0.
        lines: None for a line per dataset with a legend. For a table of one dataset, the values of
            its column `run` in the order of their line styles, without a legend.
    """
    aucs = table.filter(level="video", metric="auc")
    clean, corrupted = aucs.filter(severity=0), aucs.filter(pl.col("severity") > 0)
    corruptions = corrupted["corruption"].unique(maintain_order=True)
    column = "dataset" if lines is None else "run"
    names = clean["dataset"].to_list() if lines is None else lines
    columns = min(4, len(corruptions))
    legend = 0.5 + 0.08 * max(map(len, names)) if lines is None else 0
    figure, panels = canvases(
        1.1 + legend + 2.2 * columns,
        0.9 + 1.9 * math.ceil(len(corruptions) / columns),
        len(corruptions),
        columns,
    )
    for panel, (corruption, axes) in enumerate(zip(corruptions, panels, strict=True)):
        for index, name in enumerate(names):
            line = (
                pl.concat([clean, corrupted.filter(corruption=corruption)])
                .filter(pl.col(column) == name)
                .sort("severity")
            )
            axes.plot(
                line["severity"],
                line["value"],
                **line_style(index),
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                label=literal_text(name),
            )
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set_ylim(min(0.45, *aucs["value"] - 0.03), 1.03)
        axes.set_xticks(range(6), ["clean", *"12345"], fontsize=7)
        axes.tick_params("y", labelsize=7, labelleft=panel % columns == 0)
        axes.set_title(literal_text(corruption), fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("video AUC", fontsize=9)
    if lines is None:
        figure.legend(
            handles=panels[0].get_legend_handles_labels()[0],
            loc="outside right upper",
            frameon=False,
            fontsize=8,
        )
    return figure
