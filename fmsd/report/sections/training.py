"""Sections on training: trained layers, spectra, and curves of loss and validation."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure
from typing_extensions import TypedDict

from fmsd.errors import InputError, reason
from fmsd.figures import curves, masks
from fmsd.json_records import Number, read_record
from fmsd.peft.mask import LayerMask, MaskHistory, read_any_mask
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import legend
from fmsd.report.rows import Row
from fmsd.runs.folder import MASK, SPECTRA
from fmsd.tables import read_csv

REMEDY = "put it back, or remove it"
"""What to do about a damaged file of a run that only figures are drawn from."""


class Spectrum(TypedDict):
    """Singular values of a matrix."""

    before: list[Number]
    after: list[Number]


class SpectraRecord(TypedDict):
    """The content of `spectra.json`: the spectra by name of the matrix."""

    layers: dict[str, Spectrum]


def masks_section(overview: Overview) -> Section | None:
    """The trained layers or subspaces, a pane per row; a mask that keeps all is a sentence."""
    whole: dict[str, list[str]] = {}

    def plot(label: str, path: Path) -> Figure | None:
        mask = read_any_mask(path, REMEDY)
        if sentence := whole_mask(mask):
            whole.setdefault(sentence, []).append(label)
            return None
        if isinstance(mask, LayerMask):
            return masks.plot_layer_mask(mask)
        return masks.plot_mask_history(mask) if mask.steps else None

    panes = _figures_from_json(overview, MASK, plot, "Layers of {}", "{}")
    sentences = [f"{'; '.join(labels)}: {sentence}" for sentence, labels in whole.items()]
    if not panes and not sentences:
        return None
    body = html.paragraph(f"Of {overview.shown_runs}.", "quiet")
    body += "".join(map(html.paragraph, sentences))
    body += html.panes_by_choice(panes, ("row",)) if panes else ""
    return Section("masks", "Trained layers", body)


def whole_mask(mask: LayerMask | MaskHistory) -> str:
    """A sentence on a mask that keeps everything, of which a picture would have one colour.

    Empty for other masks.
    """
    if isinstance(mask, LayerMask):
        count = len(mask.layers)
        return (
            f"all {count} candidate layers are trained."
            if mask.layers and len(mask.kept_names) == count
            else ""
        )
    if mask.steps and all(all(active) for active in mask.active):
        return f"all {len(mask.units)} artifact subspaces are trained at every step."
    return ""


def spectra_section(overview: Overview) -> Section | None:
    """Singular values before and after training, a pane per row."""

    def plot(label: str, path: Path) -> Figure | None:
        content = read_record(path, SpectraRecord, REMEDY)
        return curves.plot_spectra(content["layers"]) if content["layers"] else None

    panes = _figures_from_json(
        overview, SPECTRA, plot, "Spectra of {}", "{}: singular values, largest first"
    )
    return _pane_section(overview, "spectra", "Spectra before and after", panes)


def training_section(overview: Overview) -> Section | None:
    """Curves of the training loss and of the validation AUC."""
    logs = [_read_log(row) for row in overview.first_seeds.values()]
    figures = []
    for column, label, caption in (
        ("train/loss", "training loss", "training loss"),
        ("val/video_auc", "AUC", "AUC per video on the validation split"),
    ):
        lines = [_curve(log, column) for log in logs]
        if any(line is not None for line in lines):
            figure = curves.plot_training(lines, label)
            figures.append(html.figure_element(figure, f"Training: {caption}", caption))
    if not figures:
        return None
    body = html.paragraph(f"Of {overview.shown_runs}.", "quiet")
    body += legend(overview.lines, overview.notes) + html.grid(figures, wide=True)
    return Section("training", "Training", body)


def _read_log(row: Row) -> pl.DataFrame:
    """The training log of a run; empty if there is none."""
    path = row.runs[0].folder / "logs" / "metrics.csv"
    if not path.is_file() or path.stat().st_size <= 1:
        return pl.DataFrame()
    return read_csv(path, infer_schema_length=None)


def _curve(log: pl.DataFrame, column: str) -> curves.Line | None:
    """Steps and values of a logged quantity; None if it was never logged."""
    if not {"step", column} <= {*log.columns}:
        return None
    points = log.select("step", column).drop_nulls()
    return None if points.is_empty() else (points["step"].to_list(), points[column].to_list())


def _figures_from_json(
    overview: Overview,
    file: str,
    plot: Callable[[str, Path], Figure | None],
    title: str,
    caption: str,
) -> dict[tuple[str, ...], str]:
    """A figure for each label whose run has a JSON file.

    Args:
        file: its name in the folder of a run.
        plot: reads and draws it, given the label and the file; None if there is nothing to draw.
        title, caption: with `{}` for the label.

    Raises:
        InputError: a file is damaged, or not what the run wrote.
    """
    panes: dict[tuple[str, ...], str] = {}
    for label, row in overview.first_seeds.items():
        row.runs[0].check(file)
        path = row.runs[0].folder / file
        if not path.is_file():
            continue
        try:
            figure = plot(label, path)
            if figure is not None:
                panes[(label,)] = html.figure_element(
                    figure, title.replace("{}", label), caption.replace("{}", label)
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} does not hold what a run writes there ({reason(error)})", REMEDY
            ) from error
    return panes


def _pane_section(
    overview: Overview, name: str, title: str, panes: Mapping[tuple[str, ...], str]
) -> Section | None:
    """A section with a pane per row; None without any."""
    if not panes:
        return None
    note = html.paragraph(f"Of {overview.shown_runs}.", "quiet")
    return Section(name, title, note + html.panes_by_choice(panes, ("row",)))
