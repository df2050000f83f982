"""Pictures of a merge: what specialists share, what is their own, and how they and the merged detector rank every forgery."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike

from fmsd.figures import style
from fmsd.peft.mask import block_name

DIVERGING = mpl.colormaps["RdBu"]
CORE, REST, EMPTY = "#0072B2", "#B0B0B0", "0.92"


def domain_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: ArrayLike,
    metric: str = "AUC",
    inverted: Sequence[tuple[int, int]] = (),
) -> Figure:
    """A heat map of videos, one row a detector, one column a forgery.

    Args:
        values: rows x columns; NaN where a detector was not tested.
        metric: what they are.
        inverted: row and column of the AUCs that are framed, as their whole interval lies below
            0.5.
    """
    cells = np.asarray(values, dtype=np.float64)
    rows, columns = ([textwrap.fill(name, 44) for name in names] for names in (rows, columns))
    lines = max(name.count("\n") + 1 for name in rows)
    height = max(0.36, 0.06 + 0.15 * lines) * len(rows)
    figure, axes = style.canvas(
        1.2 + _inches(rows) + max(3.6, 0.56 * len(columns)),
        0.7 + max(0.9, height) + 0.75 * _inches(columns),
    )
    image = axes.imshow(cells, cmap=DIVERGING, vmin=0, vmax=1, aspect="auto")
    _tell(axes, image, cells, 3)
    for row, column in inverted:
        axes.add_patch(
            Rectangle(
                (column - 0.46, row - 0.44),
                0.92,
                0.88,
                fill=False,
                edgecolor=style.DARK,
                linewidth=2,
            )
        )
    axes.set_yticks(range(len(rows)), [*map(style.literal, rows)], fontsize=8)
    axes.set_xticks(
        range(len(columns)),
        [*map(style.literal, columns)],
        fontsize=8,
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    note = f"; framed: {len(inverted)} inverted (interval below 0.5)" if inverted else ""
    axes.set_title(f"Video {metric} of each forgery{note}", fontsize=10, loc="left")
    style.scale(figure, axes, image, metric)
    return figure


def norms(names: Sequence[str], core: ArrayLike, residuals: ArrayLike) -> Figure:
    """Two heat maps, one row a kind of layer, one column a block: how far the shared core moves a layer, and the residuals' share in it.

    The norm of the core alone follows the layers' sizes; the share does not, so it can be compared
    between layers.

    Args:
        names: of the layers' parameters; a layer's weight and bias are one cell.
        core: norm of each layer's core.
        residuals: norm of each layer's residual, layers x experts.
    """
    kinds, blocks, together = grid(names, core)
    own = grid(names, residuals)[2]
    whole = share(np.sqrt(np.nansum(together**2)), np.sqrt(np.nansum(own**2, axis=(0, 1))).mean())
    cell = min(0.42, max(0.2, 16 / len(blocks)))
    figure, (above, below) = style.canvases(
        1.2 + _inches(kinds) + max(4.0, cell * len(blocks)), 2 * (1.0 + 0.36 * len(kinds)), 2
    )
    image = style.blockwise(above, kinds, blocks, together)
    image.set_clim(0, np.nanmax(together, initial=0) or 1)
    above.set_xlabel("")
    above.set_title("Core: how far all specialists move together", fontsize=10, loc="left")
    style.scale(figure, above, image, "norm")
    parts = share(together, own.mean(axis=-1))
    image = style.blockwise(below, kinds, blocks, parts)
    if np.isnan(parts).all():
        image.set_clim(0, 1)
    over = "" if np.isnan(whole) else f", {whole:.0%} over all layers"
    below.set_title(f"Residuals: the specialists' own share{over}", fontsize=10, loc="left")
    style.scale(figure, below, image, "residual share")
    for axes in (above, below):
        axes.set_facecolor(EMPTY)
    return figure


def cosines(experts: Sequence[str], gram: ArrayLike, ceiling: float | None = None) -> Figure:
    """A heat map of the cosines between the specialists' task vectors.

    Args:
        gram: inner products of the task vectors, summed over the layers.
        ceiling: cosine between two seeds of one specialist, which two specialists can hardly
            exceed; it stands below the title and is a line on the scale.
    """
    cells = cosine(gram)
    names = [textwrap.fill(name, 44) for name in experts]
    side = max(2.8, 0.62 * len(names))
    figure, axes = style.canvas(1.2 + _inches(names) + side, 0.6 + side + 0.75 * _inches(names))
    image = axes.imshow(cells, cmap=DIVERGING, vmin=-1, vmax=1)
    _tell(axes, image, cells, 2)
    axes.set_yticks(range(len(names)), [*map(style.literal, names)], fontsize=8)
    axes.set_xticks(
        range(len(names)),
        [*map(style.literal, names)],
        fontsize=8,
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    others = cells[~np.eye(len(names), dtype=bool)]
    others = others[~np.isnan(others)]
    mean = f", {float(others.mean()):z.2f} on average" if len(others) else ""
    beside = "" if ceiling is None else f"\ntwo seeds of one specialist: {ceiling:z.2f}"
    axes.set_title(f"Cosine of task vectors{mean}{beside}", fontsize=10, loc="left")
    bar = style.scale(figure, axes, image, "cosine")
    if ceiling is not None:
        bar.ax.axhline(ceiling, color=style.DARK, linewidth=2)
    return figure


def spectrum(gram: ArrayLike, directions: int, warnings: Sequence[str] = ()) -> Figure:
    """Bars of the singular values of the stacked task vectors, each with its share of the energy; the core's are coloured.

    Args:
        gram: inner products of the task vectors, weighted, scaled or centred as the core's
            directions come from them.
        directions: number of leading directions that make the core.
        warnings: reasons to doubt the core, which stand below the title.
    """
    values = singular_values(gram)
    with np.errstate(invalid="ignore"):
        energy = values**2 / (values**2).sum()
    places = np.arange(len(values))
    width = max(5.0, 1.4 + 0.62 * len(values))
    lines = [
        line
        for warning in warnings
        for line in textwrap.wrap(style.literal(warning), int(12 * (width - 0.8)))
    ]
    figure, axes = style.canvas(width, 3.2 + 0.16 * len(lines))
    bars = axes.bar(
        places, values, color=[CORE if place < directions else REST for place in places], width=0.75
    )
    axes.bar_label(
        bars, ["-" if np.isnan(part) else f"{part:.0%}" for part in energy], fontsize=8, padding=2
    )
    axes.set_xticks(places, [str(place + 1) for place in places])
    axes.set_xlabel("direction")
    axes.set_ylabel("singular value")
    axes.set_ylim(0, 1.25 * np.nanmax(values, initial=0) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    count = min(directions, len(values))
    what = "The core's direction holds" if count == 1 else f"The core's {count} directions hold"
    held = energy[:count].sum()
    title = (
        "The task vectors have no energy"
        if np.isnan(held)
        else f"{what} {held:.0%} of the task vectors' energy"
    )
    axes.set_title("\n".join([title, *lines]), fontsize=10, loc="left")
    axes.legend(
        handles=[Patch(color=CORE, label="core"), Patch(color=REST, label="residuals")],
        ncols=2,
        loc="upper right",
        frameon=False,
        fontsize=8,
    )
    return figure


def grid(
    names: Sequence[str], norm: ArrayLike
) -> tuple[list[str], list[str], Float64[np.ndarray, "kinds blocks *rest"]]:
    """Kinds of layers, blocks, and the norm in each cell: the root of the summed squares of its tensors, NaN where there is none.

    Layers outside the blocks share the column `-`.

    Args:
        norm: one or more numbers of each name, names x ...
    """
    layers = [name.removesuffix(".weight").removesuffix(".bias") for name in names]
    kinds, blocks, places = style.layout(
        [
            (style.kind(layer), "-" if block_name(layer) == layer else block_name(layer))
            for layer in layers
        ]
    )
    found = np.asarray(norm, dtype=np.float64)
    squares = np.full((len(kinds), len(blocks), *found.shape[1:]), np.nan)
    for place in places:
        squares[place] = 0
    for place, own in zip(places, found, strict=True):
        squares[place] += own**2
    return kinds, blocks, np.sqrt(squares)


def share(core: ArrayLike, residual: ArrayLike) -> np.ndarray:
    """residual / (core + residual): 0 where specialists have everything in common, 1 where nothing, NaN where nothing moved."""
    first, second = (np.asarray(norm, dtype=np.float64) for norm in (core, residual))
    with np.errstate(invalid="ignore"):
        return second / (first + second)


def cosine(gram: ArrayLike) -> Float64[np.ndarray, "experts experts"]:
    """Cosines from inner products; NaN in the row and column of a zero vector."""
    products = np.asarray(gram, dtype=np.float64)
    length = np.sqrt(np.where(products.diagonal() > 0, products.diagonal(), np.nan))
    return np.clip(products / length[:, None] / length, -1, 1)


def singular_values(gram: ArrayLike) -> Float64[np.ndarray, " experts"]:
    """Singular values of the stacked vectors, largest first: the roots of the Gram matrix's eigenvalues."""
    products = np.asarray(gram, dtype=np.float64)
    if not np.isfinite(products).all():
        return np.full(len(products), np.nan)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(products)[::-1], 0))


def _tell(axes: Axes, image: AxesImage, cells: np.ndarray, digits: int) -> None:
    """Writes into each cell its value, white on dark colours, and `-` into an empty one."""
    axes.set_facecolor(EMPTY)
    colours = image.to_rgba(cells)
    for (row, column), value in np.ndenumerate(cells):
        empty = np.isnan(value)
        dark = not empty and colours[row, column, :3] @ (0.299, 0.587, 0.114) < 0.5
        text = "-" if empty else f"{float(value):z.{digits}f}"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else style.DARK,
        )


def _inches(labels: Sequence[str]) -> float:
    """Room for the widest of labels in a small font."""
    return 0.075 * max(len(line) for label in labels for line in label.split("\n"))
