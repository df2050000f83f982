"""Pictures of what a detector looks at, and of how its features lie."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from fmsd.data.frame import REAL
from fmsd.figures.style import canvases, literal

HEAT = mpl.colormaps["inferno"]
HUES = [hue for name in ("tab10", "Dark2", "Set2") for hue in mpl.color_sequences[name]]
"""Colours of forgeries."""

SHAPES = "os^vDPX*"


class Tile(NamedTuple):
    """An explained image.

    Args:
        row: what it is shown among, e.g. a dataset and one of its domains.
        label: 0 real, 1 fake.
        score: probability of fake.
        heat: its heat map, of any size.
    """

    row: str
    label: int
    score: float
    image: UInt8[np.ndarray, "height width 3"]
    heat: Float[np.ndarray, "rows columns"]


def heatmaps(tiles: Sequence[Tile], title: str) -> Figure:
    """A row for each domain; every image stands beside itself under its heat map, its score above it, which is red on the wrong side of 0.5."""
    rows = {
        name: [tile for tile in tiles if tile.row == name]
        for name in dict.fromkeys(tile.row for tile in tiles)
    }
    columns = max(map(len, rows.values()))
    figure, panels = canvases(
        1.2 + 2.1 * columns, 0.5 + 1.3 * len(rows), columns * len(rows), columns
    )
    for place, (name, own) in enumerate(rows.items()):
        line = panels[place * columns : (place + 1) * columns]
        line[0].set_ylabel(f"{literal(name)}\n({'fake' if own[0].label else 'real'})", fontsize=7)
        for axes, tile in zip(
            line, own, strict=False
        ):  # a domain may have fewer images than others
            axes.imshow(np.concatenate([tile.image / 255, heated(tile.image, tile.heat)], 1))
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
    figure.suptitle(literal(title), fontsize=8, x=0.01, ha="left")
    return figure


def heated(
    image: UInt8[np.ndarray, "height width 3"], heat: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "height width 3"]:
    """An image under its heat map, which goes from its own lowest value (nothing) to its highest; an even map shows nothing."""
    large = cv2.resize(heat.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    reach = large.max() - large.min()
    share = (
        (large - large.min()) / reach if reach > 1e-6 * abs(large).max() else np.zeros_like(large)
    )
    cover = 0.75 * share[..., None]
    return (1 - cover) * (image / 255 * 0.9) + cover * HEAT(0.25 + 0.75 * share)[..., :3]


def features(points: pl.DataFrame, title: str) -> Figure:
    """A panel for each dataset in one plane: its forgeries by colour and shape, real frames as black crosses, other datasets pale behind them.

    Args:
        points: a row for each frame, with the columns dataset, domain, x and y.
    """
    datasets = points["dataset"].unique(maintain_order=True).to_list()
    forgeries = points.filter(pl.col("domain") != REAL)["domain"].unique().sort().to_list()
    columns = min(3, len(datasets))
    lines = -(-len(datasets) // columns)
    figure, panels = canvases(2.0 + 3.4 * columns, 0.5 + 3.2 * lines, len(datasets), columns)
    for dataset, axes in zip(datasets, panels, strict=True):
        others = points.filter(pl.col("dataset") != dataset)
        axes.scatter(
            others["x"], others["y"], s=4, c="gainsboro", linewidths=0
        )  # with them all panels have the same limits
        for number, domain in enumerate(forgeries):
            own = points.filter(dataset=dataset, domain=domain)
            look = {
                "color": HUES[number % len(HUES)],
                "marker": SHAPES[number % len(SHAPES)],
                "label": literal(domain),
            }
            axes.scatter(own["x"], own["y"], s=12, alpha=0.75, linewidths=0, **look)
        real = points.filter(dataset=dataset, domain=REAL)
        axes.scatter(real["x"], real["y"], s=12, c="black", marker="x", linewidths=0.7, label=REAL)
        axes.set_title(literal(dataset), fontsize=9, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    handles, names = panels[0].get_legend_handles_labels()
    per_column = max(6, 15 * lines)
    figure.legend(
        handles,
        names,
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        ncols=-(-len(names) // per_column),
    )
    figure.suptitle(literal(title), fontsize=8, x=0.01, ha="left")
    return figure
