"""Figures of a merge: core and residuals of the task vectors, and AUC on every forgery."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike

from fmsd.figures import style
from fmsd.figures.layers import draw_block_heatmap, grid_layout, layer_kind
from fmsd.merge.core import Core
from fmsd.merge.record import core_merger
from fmsd.merge.task_vectors import Merger, Specialists
from fmsd.peft.mask import block_name

DIVERGING = mpl.colormaps["RdBu"]
CORE, REST, EMPTY = "#0072B2", "#B0B0B0", "0.92"


def plot_domain_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: ArrayLike,
    metric: str = "AUC",
    inverted: Sequence[tuple[int, int]] = (),
) -> Figure:
    """Plots a metric per video as a heat map: a row per detector, a column per forgery.

    Args:
        values: rows x columns; NaN where a detector was not tested.
        metric: name of the metric.
        inverted: row and column of AUCs to frame, those with an interval entirely below 0.5.
    """
    cells = np.asarray(values, dtype=np.float64)
    rows = [textwrap.fill(name, 44) for name in rows]
    columns = [textwrap.fill(name, 44) for name in columns]
    lines = max(name.count("\n") + 1 for name in rows)
    height = max(0.36, 0.06 + 0.15 * lines) * len(rows)
    figure, axes = style.canvas(
        1.2 + _inches(rows) + max(3.6, 0.56 * len(columns)),
        0.7 + max(0.9, height) + 0.75 * _inches(columns),
    )
    image = axes.imshow(cells, cmap=DIVERGING, vmin=0, vmax=1, aspect="auto")
    _write_values(axes, image, cells, 3)
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
    _label_cells(axes, rows, columns)
    note = f"; framed: {len(inverted)} inverted (interval below 0.5)" if inverted else ""
    axes.set_title(f"Video {metric} of each forgery{note}", fontsize=10, loc="left")
    style.add_colorbar(figure, axes, image, metric)
    return figure


def plot_norms(names: Sequence[str], core: ArrayLike, residuals: ArrayLike) -> Figure:
    """Plots per layer the norm of the shared core, and the share of the residuals.

    Both are heat maps with a row per kind of layer and a column per block. The norm of the core
    grows with the size of a layer; the share does not and can be compared between layers.

    Args:
        names: parameters; weight and bias of a layer share a cell.
        core: norm of the core of each parameter.
        residuals: norm of the residual of each parameter and expert, parameters x experts.
    """
    kinds, blocks, core_norms = layer_grid(names, core)
    residual_norms = layer_grid(names, residuals)[2]
    total_share = residual_share(
        np.sqrt(np.nansum(core_norms**2)),
        np.sqrt(np.nansum(residual_norms**2, axis=(0, 1))).mean(),
    )
    cell = min(0.42, max(0.2, 16 / len(blocks)))
    figure, (above, below) = style.canvases(
        1.2 + _inches(kinds) + max(4.0, cell * len(blocks)), 2 * (1.0 + 0.36 * len(kinds)), 2
    )
    image = draw_block_heatmap(above, kinds, blocks, core_norms)
    image.set_clim(0, np.nanmax(core_norms, initial=0) or 1)
    above.set_xlabel("")
    above.set_title("Core: how far all specialists move together", fontsize=10, loc="left")
    style.add_colorbar(figure, above, image, "norm")
    shares = residual_share(core_norms, residual_norms.mean(axis=-1))
    image = draw_block_heatmap(below, kinds, blocks, shares)
    if np.isnan(shares).all():
        image.set_clim(0, 1)
    total = "" if np.isnan(total_share) else f", {total_share:.0%} over all layers"
    below.set_title(f"Residuals: the specialists' own share{total}", fontsize=10, loc="left")
    style.add_colorbar(figure, below, image, "residual share")
    for axes in (above, below):
        axes.set_facecolor(EMPTY)
    return figure


def plot_cosines(experts: Sequence[str], gram: ArrayLike, ceiling: float | None = None) -> Figure:
    """Plots the cosines between the task vectors of specialists as a heat map.

    Args:
        gram: inner products of the task vectors, summed over the layers.
        ceiling: cosine between two seeds of one specialist, an upper limit in practice; shown
            below the title and as a line in the colour bar.
    """
    cells = cosine_matrix(gram)
    names = [textwrap.fill(name, 44) for name in experts]
    side = max(2.8, 0.62 * len(names))
    figure, axes = style.canvas(1.2 + _inches(names) + side, 0.6 + side + 0.75 * _inches(names))
    image = axes.imshow(cells, cmap=DIVERGING, vmin=-1, vmax=1)
    _write_values(axes, image, cells, 2)
    _label_cells(axes, names, names)
    others = cells[~np.eye(len(names), dtype=bool)]
    others = others[~np.isnan(others)]
    mean = f", {float(others.mean()):z.2f} on average" if len(others) else ""
    limit = "" if ceiling is None else f"\ntwo seeds of one specialist: {ceiling:z.2f}"
    axes.set_title(f"Cosine of task vectors{mean}{limit}", fontsize=10, loc="left")
    bar = style.add_colorbar(figure, axes, image, "cosine")
    if ceiling is not None:
        bar.ax.axhline(ceiling, color=style.DARK, linewidth=2)
    return figure


def plot_spectrum(gram: ArrayLike, directions: int, warnings: Sequence[str] = ()) -> Figure:
    """Plots singular values of the stacked task vectors with their shares of the energy.

    Args:
        gram: inner products of the task vectors, weighted, scaled or centred as for the core.
        directions: number of leading directions in the core; their bars are coloured.
        warnings: reasons to doubt the core, shown below the title.
    """
    values = gram_singular_values(gram)
    with np.errstate(invalid="ignore"):
        energy = values**2 / (values**2).sum()
    positions = np.arange(len(values))
    width = max(5.0, 1.4 + 0.62 * len(values))
    lines = [
        line
        for warning in warnings
        for line in textwrap.wrap(style.literal_text(warning), int(12 * (width - 0.8)))
    ]
    figure, axes = style.canvas(width, 3.2 + 0.16 * len(lines))
    bars = axes.bar(
        positions,
        values,
        color=[CORE if position < directions else REST for position in positions],
        width=0.75,
    )
    axes.bar_label(
        bars, ["-" if np.isnan(part) else f"{part:.0%}" for part in energy], fontsize=8, padding=2
    )
    axes.set_xticks(positions, [str(position + 1) for position in positions])
    axes.set_xlabel("direction")
    axes.set_ylabel("singular value")
    axes.set_ylim(0, 1.25 * np.nanmax(values, initial=0) or 1)
    style.hide_box(axes)
    count = min(directions, len(values))
    what = "The core's direction holds" if count == 1 else f"The core's {count} directions hold"
    core_share = energy[:count].sum()
    title = (
        "The task vectors have no energy"
        if np.isnan(core_share)
        else f"{what} {core_share:.0%} of the task vectors' energy"
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


def draw_merge(
    specialists: Specialists, merger: Merger, core: Core, ceiling: float | None, folder: Path
) -> None:
    """Draws norms of core and residuals, cosines of the task vectors, and their spectrum.

    Args:
        core: of all tensors.
        ceiling: cosine between two seeds of one specialist; None if unknown.
        folder: `norms.png`, `cosines.png` and `spectrum.png` are written there.
    """
    cores, residuals = core_merger(merger).norms(specialists)
    matrices = [
        index
        for index, name in enumerate(specialists.names)
        if specialists.parts[name].kind == "matrix"
    ]
    if matrices:
        names = [specialists.names[index] for index in matrices]
        figure = plot_norms(names, cores[matrices], residuals[matrices])
        style.write_png(figure, folder / "norms.png")
    figure = plot_cosines(specialists.labels, specialists.gram.sum(0), ceiling)
    style.write_png(figure, folder / "cosines.png")
    warnings = core.warnings(specialists.labels)
    figure = plot_spectrum(core.matrix, core.directions, warnings)
    style.write_png(figure, folder / "spectrum.png")


def draw_domains(table: pl.DataFrame, path: Path) -> None:
    """Draws the video AUC of every specialist and of the merge on every forgery.

    Args:
        table: of `fmsd.engine.merging.domain_table`.
    """
    wide = (
        table.filter(level="video")
        .select("detector", "value", column=pl.format("{}/{}", "dataset", "domain"))
        .pivot("column", index="detector", values="value", maintain_order=True)
    )
    figure = plot_domain_matrix(
        wide["detector"].to_list(), wide.columns[1:], wide.drop("detector").to_numpy()
    )
    style.write_png(figure, path)


def layer_grid(
    names: Sequence[str], norm: ArrayLike
) -> tuple[list[str], list[str], Float64[np.ndarray, "kinds blocks *rest"]]:
    """Arranges norms of parameters by kind and block of their layer.

    Layers outside the blocks share the column `-`.

    Args:
        names: parameters; those of one layer are joined as the root of the summed squares.
        norm: one or more norms of each parameter, names x ...

    Returns:
        Kinds, blocks, and the norms of each cell; NaN in cells without a layer.
    """
    layers = [name.removesuffix(".weight").removesuffix(".bias") for name in names]
    kinds, blocks, cells = grid_layout(
        [
            (layer_kind(layer), "-" if block_name(layer) == layer else block_name(layer))
            for layer in layers
        ]
    )
    norms = np.asarray(norm, dtype=np.float64)
    squares = np.full((len(kinds), len(blocks), *norms.shape[1:]), np.nan)
    for cell in cells:
        squares[cell] = 0
    for cell, value in zip(cells, norms, strict=True):
        squares[cell] += value**2
    return kinds, blocks, np.sqrt(squares)


def residual_share(core: ArrayLike, residual: ArrayLike) -> np.ndarray:
    """The ratio residual / (core + residual) of norms, in [0, 1]; NaN where both are zero."""
    core_norm = np.asarray(core, dtype=np.float64)
    residual_norm = np.asarray(residual, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return residual_norm / (core_norm + residual_norm)


def cosine_matrix(gram: ArrayLike) -> Float64[np.ndarray, "experts experts"]:
    """Cosines from a Gram matrix; NaN in the row and column of a zero vector."""
    products = np.asarray(gram, dtype=np.float64)
    length = np.sqrt(np.where(products.diagonal() > 0, products.diagonal(), np.nan))
    return np.clip(products / length[:, None] / length, -1, 1)


def gram_singular_values(gram: ArrayLike) -> Float64[np.ndarray, " experts"]:
    """Singular values of stacked vectors, largest first, from their Gram matrix."""
    products = np.asarray(gram, dtype=np.float64)
    if not np.isfinite(products).all():
        return np.full(len(products), np.nan)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(products)[::-1], 0))


def _label_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names the rows and columns of a matrix of cells; the names of columns are slanted."""
    axes.set_yticks(range(len(rows)), [*map(style.literal_text, rows)], fontsize=8)
    axes.set_xticks(
        range(len(columns)),
        [*map(style.literal_text, columns)],
        fontsize=8,
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )


def _write_values(axes: Axes, image: AxesImage, cells: np.ndarray, digits: int) -> None:
    """Writes the value into each cell, `-` for NaN; white text on dark colours."""
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
    """Width of the longest label in a small font, in inches."""
    return 0.075 * max(len(line) for label in labels for line in label.split("\n"))
