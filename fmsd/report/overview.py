"""All data that the page of a report is made of."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fmsd.metrics.score_meaning import ScoreMeaning
from fmsd.report.comparability import ColumnNotes
from fmsd.report.groups import GroupResults
from fmsd.report.resamples import CurveData, Resamples
from fmsd.report.robustness import robustness_tables
from fmsd.report.rows import Row
from fmsd.report.tables import LOWER_IS_BETTER, Table
from fmsd.report.validation import run_names
from fmsd.runs.folder import Run
from fmsd.runs.papers import CitedPapers, cited_papers

MAX_LINES = 12
"""Labels with a line in figures, at most."""


@dataclass(frozen=True)
class Overview:
    """All data of a page.

    Args:
        folder: the reported folder of runs.
        tables: results by metric and level; the first is the main table.
        differences: tables of differences from a baseline row; may be empty.
        lines: labels shown in figures, with the indices of their line styles.
        resamples: intervals, forgeries and curves.
        notes: letters of the results.
        robustness: results with run, seed, corruption and severity; None without any.
        robustness_notes: letters of these.
        groups: results by group, by attribute.
    """

    folder: Path
    rows: Sequence[Row]
    tables: Mapping[tuple[str, str], Table]
    differences: Sequence[Table]
    lines: Mapping[str, int]
    resamples: Resamples
    notes: ColumnNotes
    robustness: pl.DataFrame | None
    robustness_notes: ColumnNotes
    groups: Mapping[str, GroupResults] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric of the main table."""
        return next(iter(self.tables))[0]

    @property
    def datasets(self) -> list[str]:
        """The test datasets, in the order of the tables."""
        tested = dict.fromkeys(dataset for row in self.rows for dataset in row.prediction_files)
        columns = next(iter(self.tables.values())).columns
        return [name for name in dict.fromkeys((*columns, *tested)) if name in tested]

    @functools.cached_property
    def robustness_tables(self) -> dict[str, Table]:
        """The robustness tables by dataset; empty if nothing was tested under corruptions."""
        if self.robustness is None:
            return {}
        return robustness_tables(self.robustness, self.robustness_notes)

    @functools.cached_property
    def meanings(self) -> dict[str, Mapping[str, ScoreMeaning] | None]:
        """What the scores of each run mean, by its name and by level; None where not known."""
        known = self.resamples.meanings
        names = run_names(self.rows)
        return {
            name: known(row, row.video_score) for name, row in zip(names, self.rows, strict=True)
        }

    @functools.cached_property
    def cited_papers(self) -> dict[str, CitedPapers]:
        """The papers behind the runs and evaluations of each label."""
        runs: dict[str, list[Run]] = {}
        for row in self.rows:
            runs.setdefault(row.label, []).extend(row.runs)
        return {label: cited_papers(group) for label, group in runs.items()}

    @property
    def first_seeds(self) -> dict[str, Row]:
        """The first seed of each label shown in figures."""
        first: dict[str, Row] = {}
        for row in self.rows:
            first.setdefault(row.label, row)
        return {label: first[label] for label in self.lines}

    @property
    def shown_runs(self) -> str:
        """Which runs the figures show, as a phrase."""
        count = len({row.label for row in self.rows})
        every = (
            "each row"
            if count == len(self.lines)
            else f"each of the {len(self.lines)} rows of {count} with the best mean"
        )
        several_seeds = len(self.rows) > count
        return f"the first seed of {every}" if several_seeds else f"the run of {every}"

    def dataset_title(self, dataset: str) -> str:
        """The name of a dataset with its counts of test videos."""
        counts = next(iter(self.tables.values())).videos.get(dataset)
        return dataset if counts is None else f"{dataset} ({counts})"

    def curves(self) -> Iterator[tuple[str, list[CurveData | None]]]:
        """Yields every dataset with the curves of each label, in the order of line styles."""
        for dataset in self.datasets:
            curves = [self.resamples.scores.get((label, dataset)) for label in self.lines]
            if any(curves):
                yield dataset, curves


def figure_lines(table: Table) -> dict[str, int]:
    """The labels shown in figures, with the indices of their line styles.

    At most `MAX_LINES`, those with the best mean over the columns.
    """
    sign = 1 if table.metric in LOWER_IS_BETTER else -1
    means = {
        label: sign * sum(cell.value for cell in row.values()) / len(row)
        for label, row in table.cells.items()
    }
    best = set(sorted(means, key=lambda label: means[label])[:MAX_LINES])
    shown = [label for label in table.cells if label in best]
    return {label: index for index, label in enumerate(shown)}
