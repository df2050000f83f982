"""Style of all figures: colours, lines, empty canvases, colour bars and writing."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fmsd.atomic import atomic

COLOURS = mpl.colormaps["viridis"]

LINES = ("#1f7fc4", "#d55e00", "#0a8f68", "#b8569b", "#9a7400", "#7b6bd0")
"""Colours of lines: safe for colour-blind readers, contrast at least 3 : 1 on white and on dark."""

DASHES = ("solid", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))

DARK = "#1a1a1a"
"""Dark marks on light cells in light and dark mode; `figures.svg` recolours only pure black."""


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of a line; distinct for twelve lines, neighbours differ in both."""
    return {"color": LINES[index % len(LINES)], "linestyle": DASHES[index % len(DASHES)]}


def literal_text(text: str) -> str:
    r"""Escapes text for matplotlib: no formula between `$`, no legend label hidden by `_`."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure with one panel; size in inches."""
    figure, (axes,) = canvases(width, height, 1)
    return figure, axes


def canvases(
    width: float, height: float, count: int, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure with `count` panels in reading order; size in inches."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    rows = math.ceil(count / columns)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def hide_box(axes: Axes) -> None:
    """Hides the top and right edge of the box around a panel."""
    axes.spines[["top", "right"]].set_visible(False)


def add_colorbar(figure: Figure, axes: Axes, image: AxesImage, label: str) -> Colorbar:
    """Adds the colour bar of a heat map, of the same width in narrow and wide figures."""
    width = figure.get_figwidth()
    bar = figure.colorbar(
        image, ax=axes, label=label, fraction=min(0.15, 0.8 / width), pad=min(0.03, 0.15 / width)
    )
    # As vectors it would be hundreds of shapes.
    bar.solids.set_rasterized(True)  # pyright: ignore[reportOptionalMemberAccess]
    return bar


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
