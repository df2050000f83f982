"""The pictures in the folder of a merge."""

from pathlib import Path

import polars as pl

from fmsd.figures import merges, style
from fmsd.merge.core import Core
from fmsd.merge.record import core_merger
from fmsd.merge.task_vectors import Merger, Specialists


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
        figure = merges.plot_norms(names, cores[matrices], residuals[matrices])
        style.write_png(figure, folder / "norms.png")
    figure = merges.plot_cosines(specialists.labels, specialists.gram.sum(0), ceiling)
    style.write_png(figure, folder / "cosines.png")
    warnings = core.warnings(specialists.labels)
    figure = merges.plot_spectrum(core.matrix, core.directions, warnings)
    style.write_png(figure, folder / "spectrum.png")


def draw_domains(table: pl.DataFrame, path: Path) -> None:
    """Draws the video AUC of every specialist and of the merge on every forgery.

    Args:
        table: of `fmsd.engine.merge_domains.domain_table`.
    """
    wide = (
        table.filter(level="video")
        .select("detector", "value", column=pl.format("{}/{}", "dataset", "domain"))
        .pivot("column", index="detector", values="value", maintain_order=True)
    )
    figure = merges.plot_domain_matrix(
        wide["detector"].to_list(), wide.columns[1:], wide.drop("detector").to_numpy()
    )
    style.write_png(figure, path)
