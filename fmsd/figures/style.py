"""Pictures of a run, as figures that need no display."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fmsd.atomic import atomic
from fmsd.peft.mask import LayerMask, MaskHistory, block_name

COLOURS = mpl.colormaps["viridis"]
MARKERS = "os^vDP*X"
LINES = ("#1f7fc4", "#d55e00", "#0a8f68", "#b8569b", "#9a7400", "#7b6bd0")
"""Colours of lines: told apart by colour-blind eyes, and at least 3 : 1 against a white page and a dark one."""

DASHES = ("solid", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))
DARK = "#1a1a1a"
"""What is dark on light cells, whatever the page; plain black is the ink of the page it stands on, see `fmsd.figures.svg`."""


def style(place: int) -> dict[str, Any]:
    """How the line at a place looks: twelve of them differ in colour and dashes together, neighbours in both."""
    return {"color": LINES[place % len(LINES)], "linestyle": DASHES[place % len(DASHES)]}


def layer_mask(mask: LayerMask) -> Figure:
    """A heat map of the layers' scores, one row a kind of layer, one column a block; a layer that learns carries a dot."""
    kinds, blocks, places = layout(
        [(kind(layer.name), block_name(layer.name)) for layer in mask.layers]
    )
    values = np.full((len(kinds), len(blocks)), np.nan)
    for place, layer in zip(places, mask.layers, strict=True):
        values[place] = layer.score
    figure, axes = canvas(2.5 + 0.42 * len(blocks), 1.6 + 0.42 * len(kinds))
    image = blockwise(axes, kinds, blocks, values)
    kept = [
        (column, row)
        for (row, column), layer in zip(places, mask.layers, strict=True)
        if layer.kept
    ]
    axes.scatter(*zip(*kept, strict=True), s=36, c="white", edgecolors=DARK, linewidths=0.8)
    axes.set_title(
        f"{len(kept)} of {len(mask.layers)} layers learn (dots)", fontsize=10, loc="left"
    )
    scale(figure, axes, image, f"score ({mask.settings['bias']})")
    return figure


def mask_history(history: MaskHistory) -> Figure:
    """Which artifact subspace of which layer learned from which step on: one row a layer and subspace, one column a mask."""
    layers = [unit.rpartition(".artifacts.")[0] for unit in history.units]
    figure, axes = canvas(
        3.2 + min(10.0, 0.12 * len(history.steps) + 2.0), 1.4 + max(1.2, 0.09 * len(history.units))
    )
    scores, active = np.array(history.scores).T, np.array(history.active).T
    image = axes.imshow(
        np.where(active, scores, np.nan),
        cmap=COLOURS,
        aspect="auto",
        interpolation="nearest",
        vmin=0,
    )
    axes.set_facecolor("lightgrey")
    first = {layer: place for place, layer in reversed(list(enumerate(layers)))}
    axes.set_yticks(list(first.values()), [*map(literal, first)], fontsize=6)
    shown = np.unique(
        np.linspace(0, len(history.steps) - 1, min(8, len(history.steps))).astype(int)
    )
    axes.set_xticks(shown, [str(history.steps[place]) for place in shown])
    axes.set_xlabel("optimizer step")
    axes.set_title(
        f"{active.mean():.0%} of the subspaces learn; grey ones rest", fontsize=10, loc="left"
    )
    scale(figure, axes, image, "share of signal")
    return figure


def robustness(table: pl.DataFrame, lines: Sequence[str] | None = None) -> Figure:
    """Video AUC by severity, from the clean images (0) on: a panel a corruption, a line a dataset.

    Args:
        table: tidy results with the columns `corruption` and `severity`; clean rows have severity
            0.
        lines: of one dataset, the values of its column `run` that are the lines, in the order of
            their looks; a legend is then left to the page.
    """
    aucs = table.filter(level="video", metric="auc")
    clean, others = aucs.filter(severity=0), aucs.filter(pl.col("severity") > 0)
    names, kind = (
        others["corruption"].unique(maintain_order=True),
        "dataset" if lines is None else "run",
    )
    shown = clean["dataset"].to_list() if lines is None else lines
    columns = min(4, len(names))
    legend = 0.5 + 0.08 * max(map(len, shown)) if lines is None else 0
    figure, panels = canvases(
        1.1 + legend + 2.2 * columns,
        0.9 + 1.9 * math.ceil(len(names) / columns),
        len(names),
        columns,
    )
    for place, (name, axes) in enumerate(zip(names, panels, strict=True)):
        for number, one in enumerate(shown):
            line = (
                pl.concat([clean, others.filter(corruption=name)])
                .filter(pl.col(kind) == one)
                .sort("severity")
            )
            axes.plot(
                line["severity"],
                line["value"],
                **style(number),
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                label=literal(one),
            )
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set_ylim(min(0.45, *aucs["value"] - 0.03), 1.03)
        axes.set_xticks(range(6), ["clean", *"12345"], fontsize=7)
        axes.tick_params("y", labelsize=7, labelleft=place % columns == 0)
        axes.set_title(literal(name), fontsize=9, loc="left")
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


def layout(layers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """The kinds (rows) and blocks (columns) of layers, in their order, and the place of each layer among them."""
    kinds, blocks = (list(dict.fromkeys(names)) for names in zip(*layers, strict=True))
    return kinds, blocks, [(kinds.index(row), blocks.index(column)) for row, column in layers]


def blockwise(
    axes: Axes, kinds: Sequence[str], blocks: Sequence[str], values: np.ndarray
) -> AxesImage:
    """Draws a heat map, one row a kind of layer, one column a block."""
    image = axes.imshow(values, cmap=COLOURS, aspect="auto")
    axes.set_yticks(range(len(kinds)), [*map(literal, kinds)])
    axes.set_xticks(range(len(blocks)), short(blocks), rotation=90 if len(blocks) > 16 else 0)
    axes.set_xlabel("block")
    return image


def kind(name: str) -> str:
    """A layer's name inside its block: `attn.qkv` of `blocks.3.attn.qkv`."""
    return name.removeprefix(f"{block_name(name)}.")


def short(blocks: Sequence[str]) -> list[str]:
    """Block names without what they all begin with: `3` of `blocks.3`."""
    return [".".join(re.findall(r"\d+", name)) or name for name in blocks]


def literal(text: str) -> str:
    """Text that matplotlib draws as it stands: no part of it is a formula, and no legend leaves it out, as it does names that begin with `_`."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture, its size in inches."""
    figure, (axes,) = canvases(width, height, 1)
    return figure, axes


def canvases(
    width: float, height: float, count: int, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty picture of several panels, line by line, its size in inches."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [
        figure.add_subplot(math.ceil(count / columns), columns, place + 1) for place in range(count)
    ]


def scale(figure: Figure, axes: Axes, image: AxesImage, label: str) -> Colorbar:
    """Adds the scale of a heat map's colours, as wide in a wide picture as in a narrow one."""
    width = figure.get_figwidth()
    bar = figure.colorbar(
        image, ax=axes, label=label, fraction=min(0.15, 0.8 / width), pad=min(0.03, 0.15 / width)
    )
    bar.solids.set_rasterized(True)  # pyright: ignore[reportOptionalMemberAccess]  # else it is hundreds of shapes
    return bar


def write(figure: Figure, path: Path) -> None:
    """Writes a picture as PNG, in one step."""
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
