"""The section on the forgeries that each row detects worst."""

import polars as pl

from fmsd.metrics.delong import auc_interval
from fmsd.metrics.interval import MIN_VIDEOS, enough_videos
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview

WORST = 5
"""Number of forgeries that are listed."""


def worst_section(overview: Overview) -> Section | None:
    """The forgeries with the lowest AUC of each row, with intervals and counts."""
    forgeries = overview.resamples.videos.forgeries
    if forgeries.is_empty() or forgeries["domain"].n_unique() < 2:
        return None
    header = ["forgery", "dataset", "AUC", "95 % interval", "fake videos", "real videos"]
    panes = {
        (label,): html.text_table(
            f"The lowest AUCs per video of {label}",
            header,
            worst_forgeries(forgeries, label),
            {0, 1},
        )
        for label in forgeries["run"].unique(maintain_order=True)
    }
    body = html.paragraph(
        f"The {WORST} forgeries that a row detects worst: fakes of one forgery against all real "
        "videos of their dataset. Intervals by DeLong's variance over videos, of several seeds by "
        f"the mean variance; [-] with fewer than {MIN_VIDEOS} videos of a class. The lowest of "
        "many values is low by chance, too.",
        "quiet",
    )
    return Section("worst", "Worst forgeries", body + html.panes_by_choice(panes, ("row",)))


def worst_forgeries(
    forgeries: pl.DataFrame, label: str, count: int = WORST
) -> list[list[str | float | None]]:
    """The forgeries with the lowest AUC of a row, the mean over its seeds.

    Args:
        forgeries: see `fmsd.report.video_statistics.VideoStatistics`.

    Returns:
        Forgery, dataset, AUC, interval, numbers of fake and of real videos; the lowest AUC first.
    """
    means = (
        forgeries.filter(run=label)
        .group_by("dataset", "domain", maintain_order=True)
        .agg(pl.col("auc", "variance").mean(), pl.col("reals", "fakes").min())
        .sort("auc", maintain_order=True)
        .head(count)
    )
    lines: list[list[str | float | None]] = []
    for dataset, domain, auc, variance, reals, fakes in means.iter_rows():
        ends = "[-]"
        if enough_videos(reals, fakes):
            low, high = auc_interval(auc, variance)
            ends = f"[{low:.3f}, {high:.3f}]"
        lines.append([domain, dataset, f"{auc:.3f}", ends, fakes, reals])
    return lines
