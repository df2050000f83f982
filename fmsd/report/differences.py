"""Differences of rows from a baseline row, with intervals and corrected p-values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fmsd.metrics.delong import Placements, paired_test
from fmsd.metrics.hierarchical import MIN_SEEDS
from fmsd.metrics.interval import holm_correction, paired_difference
from fmsd.report.comparability import join_letters
from fmsd.report.resamples import Resamples
from fmsd.report.rows import Row
from fmsd.report.stamped import PIXELS
from fmsd.report.summary import seed_counts, with_caption
from fmsd.report.tables import Cell, Means, ResampledMetrics, Table, used_notes

SIGNIFICANT = 0.05
"""Largest probability of any false difference in bold in a table."""


def baseline_table(
    table: Table,
    baseline: str,
    means: Means,
    resamples: Resamples,
    rows: Sequence[Row],
    holm: str = "column",
) -> Table:
    """The differences of all rows from a baseline, where the test videos are the same.

    Args:
        baseline: the label of a row.
        resamples: of the table's metric.
        holm: see `fmsd.report.tables.differences_table`.
    """

    def identities(label: str, dataset: str) -> set[tuple[str, str] | None]:
        return {
            row.ranked_identity(dataset, table.level) if dataset in row.prediction_files else None
            for row in rows
            if row.label == label
        }

    def pixels_of(label: str, dataset: str) -> set[str]:
        return {
            pixels
            for row in rows
            if row.label == label and dataset in row.prediction_files
            if (pixels := row.facts()[row.stamps_of(dataset)[0]].get(PIXELS)) is not None
        }

    def same_videos(label: str, dataset: str) -> bool:
        own = identities(label, dataset)
        pixels = pixels_of(label, dataset) | pixels_of(baseline, dataset)
        return (
            len(own) == 1
            and None not in own
            and own == identities(baseline, dataset)
            and len(pixels) <= 1
        )

    has_delong = (table.metric, table.level) == ("auc", "video")
    placements = resamples.videos.placements if has_delong else {}
    samples = resamples.samples
    differences = differences_table(table, baseline, means, samples, same_videos, placements, holm)
    method = "paired bootstrap over videos: difference, 95 % interval and two-sided p"
    if max(seed_counts(rows)) >= MIN_SEEDS:
        method += f"; the seeds of rows with at least {MIN_SEEDS} are resampled, too"
    else:
        method += ", of these trained weights, not of other seeds"
    if placements:
        method += "; DeLong p: DeLong's test over videos, of these trained weights"
    number = max((len(values) for values in samples.values()), default=0)
    return with_caption(
        differences,
        f"{method}{_comparisons(differences, holm, number)}; "
        f"- where the {table.level}s are not the same",
    )


def _comparisons(table: Table, holm: str, resamples: int) -> str:
    """The number of comparisons and their correction, as a part of a caption."""
    per_column = [
        sum(column in row and row[column].p is not None for row in table.cells.values())
        for column in table.columns
    ]
    counts = [count for count in per_column if count]
    total = sum(counts)
    if not counts:
        return ""
    bold = f"; bold: below {SIGNIFICANT:g} corrected for all {total} comparisons of this table"
    if total == 1:
        bold = f"; bold: below {SIGNIFICANT:g}"
    if 2 * total / (resamples + 1) >= SIGNIFICANT:
        needed = math.ceil(2 * total / SIGNIFICANT)
        bold += f", which takes resamples={needed} or more"
    if holm == "table":
        return f"; p corrected by Holm's method for the {total} comparisons of this table{bold}"
    if max(counts) == 1:
        return f"; one comparison in a column, {total} in this table{bold}"
    number = str(max(counts))
    if min(counts) < max(counts):
        number = f"{min(counts)} to {number}"
    return (
        f"; p corrected by Holm's method for the {number} comparisons of a column, of "
        f"{total} in this table{bold}"
    )


def differences_table(
    table: Table,
    baseline: str,
    means: Means,
    samples: ResampledMetrics,
    same_videos: Callable[[str, str], bool],
    placements: Mapping[tuple[str, str], Placements] | None = None,
    holm: str = "column",
) -> Table:
    """Paired difference of every row from a baseline row, with Holm-corrected p-values.

    Differences are paired resample by resample. Bold: significant among all of the table.

    Args:
        table: results.
        baseline: the label of the baseline row.
        same_videos: whether a row (label) was tested on the same videos of a dataset as the
            baseline.
        placements: of videos, by label and dataset, where DeLong's test applies.
        holm: p-values are corrected within a `column`, or for all of the `table`.
    """
    cells: dict[str, dict[str, Cell]] = {}
    for label, row in table.cells.items():
        if label == baseline:
            continue
        cells[label] = {}
        for column, cell in row.items():
            datasets = means.get(column, [column])
            base = table.cells[baseline].get(column)
            if base is None or not all(same_videos(label, dataset) for dataset in datasets):
                continue
            keys = [(label, dataset, table.level) for dataset in datasets]
            base_keys = [(baseline, dataset, table.level) for dataset in datasets]
            difference = Cell(
                cell.value - base.value,
                few=cell.few or base.few,
                signed=True,
                mark=join_letters((cell.mark, base.mark)),
                seeds=cell.seeds or base.seeds,
            )
            if not difference.few:
                if any(key not in samples for key in (*keys, *base_keys)):
                    continue
                test = paired_difference(
                    np.mean([samples[key] for key in keys], axis=0),
                    np.mean([samples[key] for key in base_keys], axis=0),
                    difference.value,
                )
                p = _delong(placements or {}, label, baseline, datasets)
                difference = replace(difference, low=test.low, high=test.high, p=test.p, delong=p)
            cells[label][column] = difference
    return replace(
        table,
        title=f"{table.title} minus that of {baseline}",
        cells=with_corrected_p(cells, holm),
        notes=used_notes(cells, table.notes),
    )


def _delong(
    placements: Mapping[tuple[str, str], Placements],
    label: str,
    baseline: str,
    datasets: Sequence[str],
) -> float | None:
    """The p-value of DeLong's test of a mean over datasets; None where there is no test."""
    tests = [((label, dataset), (baseline, dataset)) for dataset in datasets]
    if not all(key in placements for pair in tests for key in pair):
        return None
    p = paired_test([(placements[one], placements[other]) for one, other in tests]).p
    return None if math.isnan(p) else p


def with_corrected_p(
    cells: Mapping[str, Mapping[str, Cell]], holm: str
) -> dict[str, dict[str, Cell]]:
    """Differences with p-values corrected by Holm's method.

    Bold marks those whose p by the bootstrap, corrected for all of the table, is below
    `SIGNIFICANT`.

    Args:
        holm: the p-values shown are corrected within a `column`, or for all of the `table`.
    """
    places = [(label, column) for label, row in cells.items() for column in row]
    corrected = {label: dict(row) for label, row in cells.items()}
    for name in ("p", "delong"):
        p = {
            (label, column): value
            for label, column in places
            if (value := getattr(cells[label][column], name)) is not None
        }
        whole = dict(zip(p, holm_correction(list(p.values())), strict=True))
        for column in dict.fromkeys(column for _, column in p):
            own = [place for place in p if place[1] == column]
            values = holm_correction([p[place] for place in own])
            for (label, _), value in zip(own, values, strict=True):
                cell, everywhere = corrected[label][column], whole[label, column]
                shown = everywhere if holm == "table" else value
                best = everywhere < SIGNIFICANT if name == "p" else cell.best
                corrected[label][column] = replace(cell, **{name: shown}, best=best)
    return corrected
