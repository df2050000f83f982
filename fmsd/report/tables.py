"""Tables of a report: a row per label, a column per test dataset; means over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from jaxtyping import Float64

from fmsd.metrics.interval import (
    MIN_VIDEOS,
    enough_videos,
    percentile_interval,
)
from fmsd.metrics.layout import format_video_counts
from fmsd.report.comparability import ColumnNotes, join_letters
from fmsd.report.coverage import scored_phrase, scored_shares

LOWER_IS_BETTER = frozenset({"eer", "brier", "ece"})
"""Metrics of which low values are good."""

CHANCE: Mapping[str, float] = {"auc": 0.5, "bacc": 0.5, "bacc_val": 0.5, "eer": 0.5}
"""Chance level of the metrics that have one for all data; a value no better is never the best."""

METRIC_NAMES: Mapping[str, str] = {
    "auc": "AUC",
    "ap": "Average precision",
    "eer": "Equal error rate",
    "acc": "Accuracy at 0.5",
    "bacc": "Balanced accuracy at 0.5",
    "tpr_0.1": "TPR at 0.1 % FPR",
    "tpr_1": "TPR at 1 % FPR",
    "tpr_5": "TPR at 5 % FPR",
    "acc_val": "Accuracy at the validation threshold",
    "bacc_val": "Balanced accuracy at the validation threshold",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}

Means = Mapping[str, Sequence[str]]
"""Columns that are means over datasets: name and datasets of each."""

ResampledMetrics = Mapping[tuple[str, str, str], Float64[np.ndarray, " resamples"]]
"""A metric on resamples of a dataset's videos, by label, dataset and level; mean over seeds."""


@dataclass(frozen=True)
class Cell:
    """A value of a table.

    Args:
        value: the mean over seeds.
        deviation: the standard deviation over seeds; None for a single one.
        low, high: the ends of the interval, if there is one.
        p: p-value of a difference by the bootstrap, corrected for other comparisons.
        delong: the same by DeLong's test.
        best: no other value of the column is better, and chance is worse; of a difference, it is
            significant among all comparisons of its table.
        inverted: an AUC with an interval entirely below chance.
        few: there are too few videos for an interval, a p-value or a mark.
        signed: the value is a difference.
        mark: the letters of its notes.
        seeds: number of seeds, if the row has more elsewhere.
        scored: the share of frames or videos with a score, where some have none.
    """

    value: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    delong: float | None = None
    best: bool = False
    inverted: bool = False
    few: bool = False
    signed: bool = False
    mark: str = ""
    seeds: int | None = None
    scored: float | None = None

    @property
    def number(self) -> str:
        """The value as text; differences have a sign."""
        return f"{self.value:+.3f}" if self.signed else f"{self.value:.3f}"

    @property
    def spread(self) -> str:
        """The standard deviation over seeds, and the number of seeds if some are missing."""
        seeds = (
            "" if self.seeds is None else f" ({self.seeds} seed{'' if self.seeds == 1 else 's'})"
        )
        return ("" if self.deviation is None else f" ± {self.deviation:.3f}") + seeds

    @property
    def ends(self) -> str:
        """The interval; `[-]` if there are too few videos for one."""
        if self.low is None or self.high is None:
            return "[-]" if self.few else ""
        return f"[{self.low:.3f}, {self.high:.3f}]"

    @property
    def chance(self) -> str:
        """The p-values of a difference."""
        values = (("p", self.p), ("DeLong p", self.delong))
        return ", ".join(
            f"{name} {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
            for name, p in values
            if p is not None
        )

    @property
    def around(self) -> str:
        """Everything that follows the value: deviation, interval, p-value and coverage."""
        ends = f" {self.ends}" if self.ends else ""
        parts = (self.chance, scored_phrase(self.scored))
        return self.spread + ends + "".join(f", {part}" for part in parts if part)


@dataclass(frozen=True)
class Table:
    """One metric at one level.

    Args:
        title: metric and level in words.
        cells: by row label and column.
        videos: counts of real and fake videos of a column, as text.
        missing_intervals: a sentence on the columns without intervals.
        notes: each letter beside values, and its meaning.
        groups: neighbouring columns with a name in common; empty without groups.
    """

    title: str
    metric: str
    level: str
    columns: Sequence[str]
    cells: Mapping[str, Mapping[str, Cell]]
    caption: str = ""
    videos: Mapping[str, str] = field(default_factory=dict)
    missing_intervals: str = ""
    notes: Sequence[tuple[str, str]] = ()
    groups: Sequence[tuple[str, Sequence[str]]] = ()

    @property
    def has_differences(self) -> bool:
        """Whether the values are differences from a baseline row."""
        return any(cell.signed for row in self.cells.values() for cell in row.values())


def results_table(
    tidy: pl.DataFrame,
    metric: str,
    level: str,
    means: Means,
    samples: ResampledMetrics,
    notes: ColumnNotes,
) -> Table:
    """A table of means over seeds, with the best value of each column marked.

    Tests with fewer than `MIN_VIDEOS` videos of a class have neither intervals nor marks.

    Args:
        tidy: results with the label in the column `run`.
        means: the last columns. A row has a value there if it has all of their datasets.
        samples: of the same metric, for the intervals; empty for none.
        notes: letters of the cells.
    """
    shown = tidy.filter(metric=metric, level=level)
    columns = [*shown["dataset"].unique(maintain_order=True), *means]
    few = _too_few(shown)
    seeds = {label: part["seed"].n_unique() for (label,), part in tidy.group_by("run")}
    cells: dict[str, dict[str, Cell]] = {}
    values, scored = _with_means(shown, means), scored_shares(shown, means)
    for (label, column), part in values.group_by("run", "dataset", maintain_order=True):
        keys = [(str(label), dataset, level) for dataset in means.get(str(column), [str(column)])]
        too_few = any((label, dataset) in few for _, dataset, _ in keys)
        low, high = None, None
        if not too_few and all(key in samples for key in keys):
            low, high = percentile_interval(np.mean([samples[key] for key in keys], axis=0))
        value, deviation = part.select(
            mean=pl.col("value").mean(), deviation=pl.col("value").std()
        ).row(0)
        cells.setdefault(str(label), {})[str(column)] = Cell(
            value,
            deviation,
            low,
            high,
            inverted=metric == "auc" and high is not None and high < CHANCE["auc"],
            few=too_few,
            mark=join_letters(notes.cells.get(key, "") for key in keys),
            seeds=part.height if part.height < seeds[label] else None,
            scored=scored.get((str(label), str(column))),
        )
    return Table(
        f"{METRIC_NAMES.get(metric, metric)} per {level}",
        metric,
        level,
        columns,
        with_best(cells, columns, metric),
        videos=format_video_counts(shown),
        missing_intervals=missing_intervals(shown),
        notes=used_notes(cells, notes.notes),
    )


def _with_means(shown: pl.DataFrame, means: Means) -> pl.DataFrame:
    """Run, seed, dataset and value, with rows for the means over datasets."""
    parts = [shown.select("run", "seed", "dataset", "value")]
    for name, datasets in means.items():
        averages = (
            shown.filter(pl.col("dataset").is_in(datasets))
            .group_by("run", "seed", maintain_order=True)
            .agg(pl.col("value").mean(), count=pl.len())
        )
        parts.append(
            averages.filter(count=len(datasets)).select(
                "run", "seed", pl.lit(name).alias("dataset"), "value"
            )
        )
    return pl.concat(parts)


def _too_few(shown: pl.DataFrame) -> dict[tuple[str, str], str]:
    """The tests with too few videos of a class: run, dataset, and counts as text (`1 real`)."""
    known = shown.drop_nulls("n_real_videos").with_columns(
        real="n_real_videos", fake=pl.col("n_videos") - pl.col("n_real_videos")
    )
    too_few = {}
    for (label, dataset), part in known.group_by("run", "dataset", maintain_order=True):
        real, fake = part.select(pl.col("real", "fake").min()).row(0)
        if not enough_videos(real, fake):
            counts = (("real", real), ("fake", fake))
            too_few[label, dataset] = " and ".join(
                f"{count} {kind}" for kind, count in counts if count < MIN_VIDEOS
            )
    return too_few


def missing_intervals(tidy: pl.DataFrame) -> str:
    """A sentence on the datasets without intervals; empty if there are none."""
    parts = dict.fromkeys(
        f"{dataset} has {counts}" for (_, dataset), counts in _too_few(tidy).items()
    )
    if not parts:
        return ""
    return f"No interval, p-value or mark under {MIN_VIDEOS} videos of a class: {', '.join(parts)}."


def with_best(
    cells: Mapping[str, Mapping[str, Cell]], columns: Sequence[str], metric: str
) -> dict[str, dict[str, Cell]]:
    """Marks the best cells of each column at display precision.

    A column with a single candidate has no mark. Candidates are means over all seeds of a row, of
    enough videos; values no better than chance are never marked.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def score(cell: Cell) -> float | None:
        return None if cell.few or cell.seeds is not None else sign * round(cell.value, 3)

    best: dict[str, float | None] = {}
    for column in columns:
        candidates = [score(row[column]) for row in cells.values() if column in row]
        scores = [value for value in candidates if value is not None]
        best[column] = max(scores) if len(scores) > 1 else None
        if scores and metric in CHANCE and max(scores) <= sign * CHANCE[metric]:
            best[column] = None
    return {
        label: {
            column: replace(cell, best=best[column] is not None and score(cell) == best[column])
            for column, cell in row.items()
        }
        for label, row in cells.items()
    }


def used_notes(
    cells: Mapping[str, Mapping[str, Cell]], notes: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The notes whose letters occur in the cells."""
    used = {
        letter for row in cells.values() for cell in row.values() for letter in cell.mark.split(",")
    }
    return [(letter, meaning) for letter, meaning in notes if letter in used]
