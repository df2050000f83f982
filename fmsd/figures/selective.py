"""Figures of selective prediction, with a line per row of a report."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from fmsd.figures.simplify import simplify_line
from fmsd.figures.style import canvas, hide_box, line_style
from fmsd.metrics.selective import RiskCoverage


def plot_risk_coverage(lines: Sequence[RiskCoverage | None]) -> Figure:
    """Plots the share of wrong verdicts over the share of videos with a verdict.

    Args:
        lines: None for a row without scores; the style of a line follows from its place.
    """
    figure, axes = canvas(4.6, 3.0)
    for index, line in enumerate(lines):
        if line is not None:
            axes.plot(*simplify_line(line.coverage, line.risk), **line_style(index), linewidth=1.5)
    axes.set(
        xlim=(0, 1.02),
        ylim=(0, None),
        xlabel="share of videos with a verdict",
        ylabel="share of wrong verdicts",
    )
    hide_box(axes)
    return figure
