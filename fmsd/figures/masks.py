"""Figures of layer masks: the selected layers, and when artifact subspaces were trained."""

import numpy as np
from matplotlib.figure import Figure

from fmsd.figures.layers import draw_block_heatmap, grid_layout, layer_kind
from fmsd.figures.style import COLOURS, DARK, add_colorbar, canvas, literal_text
from fmsd.peft.mask import LayerMask, MaskHistory, block_name


def plot_layer_mask(mask: LayerMask) -> Figure:
    """Plots the scores of layers: a row per kind, a column per block, dots on selected layers."""
    kinds, blocks, cells = grid_layout(
        [(layer_kind(layer.name), block_name(layer.name)) for layer in mask.layers]
    )
    values = np.full((len(kinds), len(blocks)), np.nan)
    for cell, layer in zip(cells, mask.layers, strict=True):
        values[cell] = layer.score
    figure, axes = canvas(2.5 + 0.42 * len(blocks), 1.6 + 0.42 * len(kinds))
    image = draw_block_heatmap(axes, kinds, blocks, values)
    kept = [
        (column, row) for (row, column), layer in zip(cells, mask.layers, strict=True) if layer.kept
    ]
    axes.scatter(*zip(*kept, strict=True), s=36, c="white", edgecolors=DARK, linewidths=0.8)
    axes.set_title(
        f"{len(kept)} of {len(mask.layers)} layers are trained (dots)", fontsize=10, loc="left"
    )
    add_colorbar(figure, axes, image, f"score ({mask.settings['bias']})")
    return figure


def plot_mask_history(history: MaskHistory) -> Figure:
    """Plots the active artifact subspaces: a row per layer and subspace, a column per mask."""
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
    first_rows = {layer: row for row, layer in reversed(list(enumerate(layers)))}
    axes.set_yticks(list(first_rows.values()), [*map(literal_text, first_rows)], fontsize=6)
    ticks = np.linspace(0, len(history.steps) - 1, min(8, len(history.steps)))
    columns = np.unique(ticks.astype(int))
    axes.set_xticks(columns, [str(history.steps[column]) for column in columns])
    axes.set_xlabel("optimizer step")
    axes.set_title(
        f"{active.mean():.0%} of the subspaces are trained; grey ones are inactive",
        fontsize=10,
        loc="left",
    )
    add_colorbar(figure, axes, image, "share of signal")
    return figure
