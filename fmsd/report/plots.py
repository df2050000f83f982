"""Pictures of a run. They are drawn into a file without a display."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fmsd.atomic import atomic
from fmsd.mask import LayerMask, MaskHistory, block

COLOURS = mpl.colormaps["viridis"]


def layer_mask(mask: LayerMask, path: Path) -> None:
    """A heat map of the layers' scores, one row a kind of layer, one column a block; a layer that learns carries a dot."""
    kinds, blocks, places = layout([(kind(layer.name), block(layer.name)) for layer in mask.layers])
    values = np.full((len(kinds), len(blocks)), np.nan)
    for place, layer in zip(places, mask.layers, strict=True):
        values[place] = layer.score
    figure, axes = canvas(2.5 + 0.42 * len(blocks), 1.6 + 0.42 * len(kinds))
    image = blockwise(axes, kinds, blocks, values)
    kept = [(column, row) for (row, column), layer in zip(places, mask.layers, strict=True) if layer.kept]
    axes.scatter(*zip(*kept, strict=True), s=36, c="white", edgecolors="black", linewidths=0.8)
    axes.set_title(f"{len(kept)} of {len(mask.layers)} layers learn (dots)", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, label=f"score ({mask.settings['bias']})")
    write(figure, path)


def mask_history(history: MaskHistory, path: Path) -> None:
    """Which artifact subspace of which layer learned from which step on: one row a layer and subspace, one column a mask."""
    layers = [unit.rpartition(".artifacts.")[0] for unit in history.units]
    figure, axes = canvas(3.2 + min(10.0, 0.12 * len(history.steps) + 2.0), 1.4 + max(1.2, 0.09 * len(history.units)))
    scores, active = np.array(history.scores).T, np.array(history.active).T
    image = axes.imshow(np.where(active, scores, np.nan), cmap=COLOURS, aspect="auto", interpolation="nearest", vmin=0)
    axes.set_facecolor("lightgrey")
    first = {layer: place for place, layer in reversed(list(enumerate(layers)))}
    axes.set_yticks(list(first.values()), list(first), fontsize=6)
    shown = np.unique(np.linspace(0, len(history.steps) - 1, min(8, len(history.steps))).astype(int))
    axes.set_xticks(shown, [str(history.steps[place]) for place in shown])
    axes.set_xlabel("optimizer step")
    axes.set_title(f"{active.mean():.0%} of the subspaces learn; grey ones rest", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, label="share of signal")
    write(figure, path)


def layout(layers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """The kinds (rows) and blocks (columns) of layers, in their order, and the place of each layer among them."""
    kinds, blocks = (list(dict.fromkeys(names)) for names in zip(*layers, strict=True))
    return kinds, blocks, [(kinds.index(row), blocks.index(column)) for row, column in layers]


def blockwise(axes: Axes, kinds: Sequence[str], blocks: Sequence[str], values: np.ndarray) -> AxesImage:
    """Draws a heat map, one row a kind of layer, one column a block."""
    image = axes.imshow(values, cmap=COLOURS, aspect="auto")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(len(blocks)), short(blocks), rotation=90 if len(blocks) > 16 else 0)
    axes.set_xlabel("block")
    return image


def kind(name: str) -> str:
    """A layer's name inside its block: `attn.qkv` of `blocks.3.attn.qkv`."""
    return name.removeprefix(f"{block(name)}.")


def short(blocks: Sequence[str]) -> list[str]:
    """Block names without what they all begin with: `3` of `blocks.3`."""
    return [".".join(re.findall(r"\d+", name)) or name for name in blocks]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture, its size in inches."""
    figure, (axes,) = canvases(width, height, 1)
    return figure, axes


def canvases(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """An empty picture of several panels, one below the other, its size in inches."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(count, 1, place + 1) for place in range(count)]


def write(figure: Figure, path: Path) -> None:
    """Writes a picture as PNG, in one step."""
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
