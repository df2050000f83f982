"""Figures of scores and of training, with a line per row of a report.

The style of a line follows from its index in the list, so that a missing line (None) does not
change the style of the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmsd.figures.simplify import simplify_line
from fmsd.figures.style import canvas, canvases, hide_box, line_style, literal_text
from fmsd.metrics.ranking import Labels, Scores, roc_curve

Scored = tuple[Scores, Labels]
Line = tuple[Sequence[float], Sequence[float]]


MAX_HISTOGRAMS = 12
"""Forgeries with a histogram of their own; more of them are pooled into one."""

TICKS = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6)
"""Error rates marked at the axes of a DET curve; the first and last are its limits."""


def plot_roc(lines: Sequence[Scored | None]) -> Figure:
    """Plots ROC curves: true positive rate over false positive rate."""
    figure, axes = square_canvas()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
    for index, scored in enumerate(lines):
        if scored is not None:
            false_positive, true_positive = roc_rates(*scored)
            axes.plot(
                *simplify_line(false_positive, true_positive), **line_style(index), linewidth=1.5
            )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="false positive rate",
        ylabel="true positive rate",
    )
    return figure


def plot_det(lines: Sequence[Scored | None]) -> Figure:
    """Plots DET curves: false negative over false positive rate (Martin et al., 1997).

    Both axes are normal deviates, so that normally distributed scores make a straight line.
    """
    figure, axes = square_canvas()
    low, *_, high = ends = probit(np.array(TICKS))
    axes.plot((low, high), (low, high), color="grey", linewidth=0.8, linestyle=":")
    for index, scored in enumerate(lines):
        if scored is not None:
            false_positive, true_positive = roc_rates(*scored)
            x = np.clip(probit(false_positive), low - 1, high + 1)
            y = np.clip(probit(1 - true_positive), low - 1, high + 1)
            axes.plot(*simplify_line(x, y), **line_style(index), linewidth=1.5)
    names = [f"{100 * tick:g} %" for tick in TICKS]
    axes.set_xticks(ends, names)
    axes.set_yticks(ends, names)
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        xlabel="false positive rate",
        ylabel="false negative rate",
    )
    return figure


def shows_det(scored: Scored) -> bool:
    """Whether any part of a DET curve lies within the axes of `plot_det`.

    A detector that ranks all videos without an error has no point there, nor has one with error
    rates above the last tick alone.
    """
    false_positive, true_positive = roc_rates(*scored)
    low, high = TICKS[0], TICKS[-1]

    def within(rates: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " segments"]:
        lower, upper = np.minimum(rates[:-1], rates[1:]), np.maximum(rates[:-1], rates[1:])
        return (upper >= low) & (lower <= high)

    return bool(np.any(within(false_positive) & within(1 - true_positive)))


def plot_histograms(
    domains: Mapping[str, Float64[np.ndarray, "..."]], real: str = "real"
) -> Figure:
    """Plots histograms of the probability of fake by domain; real frames are the filled area.

    Args:
        domains: the scores of each domain's frames.
        real: the domain of real frames.
    """
    if len(fakes := [name for name in domains if name != real]) > MAX_HISTOGRAMS:
        pooled = {f"{len(fakes)} forgeries": np.concatenate([domains[name] for name in fakes])}
        domains = {name: scores for name, scores in domains.items() if name == real} | pooled
    figure, axes = canvas(4.6, 2.9)
    edges = np.linspace(0, 1, 41)
    for place, (name, scores) in enumerate(
        sorted(domains.items(), key=lambda item: item[0] != real)
    ):
        shares = np.histogram(scores, edges)[0] / len(scores)
        if name == real:
            axes.stairs(
                shares, edges, fill=True, color="grey", alpha=0.45, label=literal_text(name)
            )
        else:
            axes.stairs(
                shares,
                edges,
                **line_style(place - (real in domains)),
                linewidth=1.5,
                label=literal_text(name),
            )
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="probability of fake", ylabel="share of frames")
    hide_box(axes)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def plot_reliability(tables: Sequence[pl.DataFrame | None]) -> Figure:
    """Plots reliability diagrams: share of fakes over mean score, per bin of scores.

    Args:
        tables: results of `fmsd.metrics.calibration.reliability`.
    """
    figure, axes = square_canvas()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
    for index, table in enumerate(tables):
        if table is not None:
            bins = table.filter(pl.col("count") > 0)
            axes.plot(
                bins["score"],
                bins["fakes"],
                **line_style(index),
                linewidth=1.5,
                marker="o",
                markersize=3,
            )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean score", ylabel="share of fakes")
    return figure


def plot_training(lines: Sequence[Line | None], label: str) -> Figure:
    """Plots a quantity over optimizer steps.

    Args:
        lines: steps and values.
        label: name of the quantity.
    """
    figure, axes = canvas(4.6, 2.8)
    for index, line in enumerate(lines):
        if line is not None:
            x, y = np.asarray(line[0], np.float64), np.asarray(line[1], np.float64)
            marker = {"marker": "o", "markersize": 3} if len(x) <= 20 else {}
            axes.plot(*simplify_line(x, y), **line_style(index), **marker, linewidth=1.3)
    axes.set(xlabel="optimizer step", ylabel=label)
    hide_box(axes)
    return figure


def plot_spectra(layers: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Plots singular values before and after training, largest first: a panel per layer.

    Args:
        layers: singular values `before` and `after` training, by name of the layer.
    """
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure, panels = canvases(0.6 + 2.3 * columns, 0.7 + 1.75 * rows, len(layers), columns)
    for (name, values), axes in zip(layers.items(), panels, strict=True):
        for index, when in enumerate(("before", "after")):
            spectrum = np.asarray(values[when], dtype=np.float64)
            spectrum = spectrum[spectrum > 0]
            x, logarithm = simplify_line(
                np.arange(1, len(spectrum) + 1, dtype=np.float64), np.log10(spectrum)
            )
            axes.plot(x, 10**logarithm, **line_style(index), linewidth=1.4, label=when)
        axes.set_yscale("log")
        axes.set_title(literal_text(name), fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        hide_box(axes)
    panels[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("place", fontsize=9)
    figure.supylabel("singular value", fontsize=9)
    return figure


def roc_rates(
    score: Scores, label: Labels
) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
    """False and true positive rates over all thresholds, both in rising order."""
    curve = roc_curve(score, label)
    return curve.false_positive_rate.numpy(), curve.true_positive_rate.numpy()


def probit(rate: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """The quantiles of the standard normal distribution at given probabilities."""
    return torch.special.ndtri(torch.from_numpy(rate)).numpy()


def square_canvas() -> tuple[Figure, Axes]:
    """An empty figure with one square panel."""
    figure, axes = canvas(3.5, 3.4)
    axes.set_box_aspect(1)
    hide_box(axes)
    return figure, axes
