"""Figures that explain a detector: attribution maps and embeddings of its features."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from fmsd.data.frame import REAL
from fmsd.figures.style import canvases, literal_text

HEAT = mpl.colormaps["inferno"]
HUES = [hue for name in ("tab10", "Dark2", "Set2") for hue in mpl.color_sequences[name]]
"""Colours of forgeries."""

SHAPES = "os^vDPX*"


class Tile(NamedTuple):
    """An image with its attribution map.

    Args:
        row: title of the row it is shown in, e.g. a dataset and one of its domains.
        label: 0 real, 1 fake.
        score: probability of fake.
        image: RGB image.
        heat: its attribution map, of any size.
    """

    row: str
    label: int
    score: float
    image: UInt8[np.ndarray, "height width 3"]
    heat: Float[np.ndarray, "rows columns"]


def plot_heatmaps(tiles: Sequence[Tile], title: str) -> Figure:
    """Plots images beside their attribution maps: a row per domain, scores as titles.

    Scores on the wrong side of 0.5 are red.
    """
    rows = {
        name: [tile for tile in tiles if tile.row == name]
        for name in dict.fromkeys(tile.row for tile in tiles)
    }
    columns = max(map(len, rows.values()))
    figure, panels = canvases(
        1.2 + 2.1 * columns, 0.5 + 1.3 * len(rows), columns * len(rows), columns
    )
    for index, (name, row_tiles) in enumerate(rows.items()):
        line = panels[index * columns : (index + 1) * columns]
        line[0].set_ylabel(
            f"{literal_text(name)}\n({'fake' if row_tiles[0].label else 'real'})", fontsize=7
        )
        for axes, tile in zip(line, row_tiles, strict=False):  # rows differ in length
            axes.imshow(
                np.concatenate([tile.image / 255, overlay_heatmap(tile.image, tile.heat)], 1)
            )
            wrong = (tile.score >= 0.5) != bool(tile.label)
            axes.set_title(
                f"{tile.score:.2f}{' wrong' if wrong else ''}",
                fontsize=8,
                color="firebrick" if wrong else "black",
                pad=2,
            )
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    figure.suptitle(literal_text(title), fontsize=8, x=0.01, ha="left")
    return figure


def overlay_heatmap(
    image: UInt8[np.ndarray, "height width 3"], heat: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "height width 3"]:
    """Blends an image with its attribution map, scaled from its minimum to its maximum.

    A constant map leaves the image as it is.
    """
    large = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    span = large.max() - large.min()
    scaled = (
        (large - large.min()) / span if span > 1e-6 * abs(large).max() else np.zeros_like(large)
    )
    opacity = 0.75 * scaled[..., None]
    return (1 - opacity) * (image / 255 * 0.9) + opacity * HEAT(0.25 + 0.75 * scaled)[..., :3]


def plot_features(points: pl.DataFrame, title: str) -> Figure:
    """Plots a 2-D embedding of features, a panel per dataset in common coordinates.

    Forgeries differ in colour and shape, real frames are black crosses, and the other datasets are
    pale in the background.

    Args:
        points: a row per frame with the columns dataset, domain, x and y.
    """
    datasets = points["dataset"].unique(maintain_order=True).to_list()
    forgeries = points.filter(pl.col("domain") != REAL)["domain"].unique().sort().to_list()
    columns = min(3, len(datasets))
    rows = -(-len(datasets) // columns)
    figure, panels = canvases(2.0 + 3.4 * columns, 0.5 + 3.2 * rows, len(datasets), columns)
    for dataset, axes in zip(datasets, panels, strict=True):
        others = points.filter(pl.col("dataset") != dataset)
        # They give all panels the same limits.
        axes.scatter(others["x"], others["y"], s=4, c="gainsboro", linewidths=0)
        for index, domain in enumerate(forgeries):
            fakes = points.filter(dataset=dataset, domain=domain)
            look = {
                "color": HUES[index % len(HUES)],
                "marker": SHAPES[index % len(SHAPES)],
                "label": literal_text(domain),
            }
            axes.scatter(fakes["x"], fakes["y"], s=12, alpha=0.75, linewidths=0, **look)
        real = points.filter(dataset=dataset, domain=REAL)
        axes.scatter(real["x"], real["y"], s=12, c="black", marker="x", linewidths=0.7, label=REAL)
        axes.set_title(literal_text(dataset), fontsize=9, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    handles, names = panels[0].get_legend_handles_labels()
    per_column = max(6, 15 * rows)
    figure.legend(
        handles,
        names,
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        ncols=-(-len(names) // per_column),
    )
    figure.suptitle(literal_text(title), fontsize=8, x=0.01, ha="left")
    return figure
