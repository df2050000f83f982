"""Pictures of scores and of training: a line a row of the report. A line keeps the look of its place, also where others before it are missing."""

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmsd.figures.style import canvas, canvases, literal, style
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.ranking import roc_curve as ranked

Scored = tuple[Scores, Labels]
Line = tuple[Sequence[float], Sequence[float]]

MOST = 300
"""Points of a line at most: more are not to be seen."""

CROWD = 12
"""Forgeries whose histograms are told apart at most; more are one."""

TICKS = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6)
"""Error rates at the axes of a DET curve; the first and last are its ends, too."""


def roc(lines: Sequence[Scored | None]) -> Figure:
    """How many fakes are found (y) at what share of false alarms (x)."""
    figure, axes = square()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
    for place, scored in enumerate(lines):
        if scored is not None:
            false_positive, true_positive = rates(*scored)
            axes.plot(*thinned(false_positive, true_positive), **style(place), linewidth=1.5)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="false positive rate",
        ylabel="true positive rate",
    )
    return figure


def det(lines: Sequence[Scored | None]) -> Figure:
    """Misses (y) against false alarms (x), both as normal deviates: normal scores make a straight line (Martin et al., 1997)."""
    figure, axes = square()
    low, *_, high = ends = probit(np.array(TICKS))
    axes.plot((low, high), (low, high), color="grey", linewidth=0.8, linestyle=":")
    for place, scored in enumerate(lines):
        if scored is not None:
            false_positive, true_positive = rates(*scored)
            x, y = (
                np.clip(probit(rate), low - 1, high + 1)
                for rate in (false_positive, 1 - true_positive)
            )
            axes.plot(*thinned(x, y), **style(place), linewidth=1.5)
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


def histograms(domains: Mapping[str, Float64[np.ndarray, "..."]], real: str = "real") -> Figure:
    """How the probabilities of fake are spread in each domain; reals are the filled area.

    Args:
        domains: the scores of each domain's frames.
    """
    if len(fakes := [name for name in domains if name != real]) > CROWD:
        pooled = {f"{len(fakes)} forgeries": np.concatenate([domains[name] for name in fakes])}
        domains = {name: scores for name, scores in domains.items() if name == real} | pooled
    figure, axes = canvas(4.6, 2.9)
    edges = np.linspace(0, 1, 41)
    for place, (name, scores) in enumerate(
        sorted(domains.items(), key=lambda item: item[0] != real)
    ):
        shares = np.histogram(scores, edges)[0] / len(scores)
        if name == real:
            axes.stairs(shares, edges, fill=True, color="grey", alpha=0.45, label=literal(name))
        else:
            axes.stairs(
                shares,
                edges,
                **style(place - (real in domains)),
                linewidth=1.5,
                label=literal(name),
            )
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="probability of fake", ylabel="share of frames")
    bare(axes)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def reliability(tables: Sequence[pl.DataFrame | None]) -> Figure:
    """The share of fakes (y) among frames of about the same score (x): on the diagonal a score is a probability.

    Args:
        tables: as `fmsd.metrics.calibration.reliability` makes them.
    """
    figure, axes = square()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
    for place, table in enumerate(tables):
        if table is not None:
            held = table.filter(pl.col("count") > 0)
            axes.plot(
                held["score"],
                held["fakes"],
                **style(place),
                linewidth=1.5,
                marker="o",
                markersize=3,
            )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean score", ylabel="share of fakes")
    return figure


def training(lines: Sequence[Line | None], what: str) -> Figure:
    """A quantity by optimizer step."""
    figure, axes = canvas(4.6, 2.8)
    for place, line in enumerate(lines):
        if line is not None:
            x, y = (np.asarray(values, dtype=np.float64) for values in line)
            marker = {"marker": "o", "markersize": 3} if len(x) <= 20 else {}
            axes.plot(*thinned(x, y), **style(place), **marker, linewidth=1.3)
    axes.set(xlabel="optimizer step", ylabel=what)
    bare(axes)
    return figure


def spectra(layers: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Singular values of layers before and after training, the largest first: a panel a layer.

    Args:
        layers: `before` and `after` of each layer.
    """
    columns = min(4, len(layers))
    lines = -(-len(layers) // columns)
    figure, panels = canvases(0.6 + 2.3 * columns, 0.7 + 1.75 * lines, len(layers), columns)
    for (name, values), axes in zip(layers.items(), panels, strict=True):
        for place, when in enumerate(("before", "after")):
            held = np.asarray(values[when], dtype=np.float64)
            held = held[held > 0]
            x, logarithm = thinned(np.arange(1, len(held) + 1, dtype=np.float64), np.log10(held))
            axes.plot(x, 10**logarithm, **style(place), linewidth=1.4, label=when)
        axes.set_yscale("log")
        axes.set_title(literal(name), fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        bare(axes)
    panels[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("place", fontsize=9)
    figure.supylabel("singular value", fontsize=9)
    return figure


def rates(
    score: Scores, label: Labels
) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
    """False and true positive rates of every threshold, both rising."""
    curve = ranked(score, label)
    return curve.false_positive_rate.numpy(), curve.true_positive_rate.numpy()


def probit(rate: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """The normal deviate below which a share of all lies."""
    return torch.special.ndtri(torch.from_numpy(rate)).numpy()


def thinned(
    x: Float64[np.ndarray, " points"], y: Float64[np.ndarray, " points"], most: int = MOST
) -> tuple[Float64[np.ndarray, " kept"], Float64[np.ndarray, " kept"]]:
    """A line through fewer of its points, those first that it would miss by most.

    What is closer than a thousandth of its size is left out, and so is what is not finite. The idea
    is that of D. Douglas and T. Peucker (1973).
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 3:
        return x, y
    points = np.stack([values / (np.ptp(values) or 1.0) for values in (x, y)], axis=1)
    kept = {0, len(x) - 1}
    heap = [_farthest(points, 0, len(x) - 1)]
    while heap and len(kept) < most:
        gap, place, first, last = heapq.heappop(heap)
        if -gap < 1e-3:
            break
        kept.add(place)
        for ends in ((first, place), (place, last)):
            if ends[1] - ends[0] > 1:
                heapq.heappush(heap, _farthest(points, *ends))
    chosen = sorted(kept)
    return x[chosen], y[chosen]


def _farthest(
    points: Float64[np.ndarray, "points 2"], first: int, last: int
) -> tuple[float, int, int, int]:
    """The negative distance and place of the point that is farthest from a chord, and its ends."""
    start, chord = points[first], points[last] - points[first]
    own = points[first + 1 : last] - start
    along = np.clip(own @ chord / max(chord @ chord, 1e-300), 0, 1)
    gaps = np.linalg.norm(own - along[:, None] * chord, axis=1)
    place = int(gaps.argmax())
    return -float(gaps[place]), first + 1 + place, first, last


def square() -> tuple[Figure, Axes]:
    """An empty picture as high as wide."""
    figure, axes = canvas(3.5, 3.4)
    axes.set_box_aspect(1)
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """Leaves out the lines of a box that are no axes."""
    axes.spines[["top", "right"]].set_visible(False)
