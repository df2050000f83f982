"""Results by group: the test videos of a dataset, divided by any column."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from fmsd.console import track
from fmsd.errors import InputError
from fmsd.metrics.groups import UNKNOWN, VALUES, Group, resample_groups, split_groups
from fmsd.metrics.hierarchical import resample_seeds
from fmsd.metrics.interval import MIN_VIDEOS, ResampledMetric, percentile_interval
from fmsd.metrics.score_meaning import wilson
from fmsd.metrics.table import scores_by_dataset
from fmsd.report.attributes import Attributes
from fmsd.report.columns import dataset_groups
from fmsd.report.coverage import group_coverage
from fmsd.report.markup import count_noun
from fmsd.report.rows import Row
from fmsd.report.summary import interval_phrase
from fmsd.report.tables import Cell, Table
from fmsd.tables import as_plain_text

MOST = 50
"""Most groups of a dataset."""

NO_COLUMN = frozenset(
    {"path", "label", "video", "index", "logit", "content", "score", "outcome", "filled"}
)
"""Columns of predictions that divide no videos into groups."""

NONE = "(none)"
"""The group of an empty value of a manifest."""

TITLES = {
    "auc": "AUC of videos",
    "fpr": "False positive rate of videos at the validation threshold",
    "tpr": "True positive rate of videos at the validation threshold",
}


SCHEMA = {
    "run": pl.String,
    "dataset": pl.String,
    "column": pl.String,
    "group": pl.String,
    "level": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "deviation": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "videos": pl.String,
    "n_expected": pl.Int64,
    "n_scored": pl.Int64,
}


@dataclass(frozen=True)
class GroupResults:
    """Results by group.

    Args:
        tables: AUC, false and true positive rate; a column per dataset and group.
        tidy: the same, one value per line; the group of a gap is empty.
    """

    tables: list[Table]
    tidy: pl.DataFrame


@dataclass
class Tested:
    """The seeds of a row on one dataset.

    Args:
        values: by value and group, of each seed.
        samples: the same on resamples.
        groups: those of the first seed, for counts.
        coverage: of the first seed, see `fmsd.report.coverage.group_coverage`.
    """

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    samples: dict[tuple[str, str], list[ResampledMetric]] = field(
        default_factory=lambda: defaultdict(list)
    )
    groups: dict[str, Group] = field(default_factory=dict)
    coverage: dict[tuple[str | None, int], tuple[int, int]] = field(default_factory=dict)

    def covered(self, value: str, name: str) -> tuple[int, int]:
        """The numbers of expected and of scored videos behind a value of a group."""
        own_reals = self.groups[name].all_reals is None
        real, fake = (name if own_reals or value == "fpr" else None, 0), (name, 1)
        keys = {"auc": (real, fake), "fpr": (real,), "tpr": (fake,)}[value]
        counts = [self.coverage.get(key, (0, 0)) for key in keys]
        return sum(expected for expected, _ in counts), sum(scored for _, scored in counts)


def group_columns(frames: pl.DataFrame, attributes: Attributes | None) -> list[str]:
    """The columns that may divide videos into groups.

    Args:
        frames: the predictions of a test.
    """
    own = [name for name in frames.columns if name not in NO_COLUMN]
    return [*own, *(attributes.names if attributes else ())]


def group_results(
    rows: Sequence[Row], column: str, resamples: int, attributes: Attributes | None = None
) -> GroupResults:
    """AUC, false and true positive rate of each group, and the gaps between groups.

    Args:
        column: of the predictions or the attributes.
        resamples: number of resamples for intervals; 0 for none.

    Raises:
        InputError: a test lacks the column, or has too many groups.
    """
    tested: dict[tuple[str, str], Tested] = defaultdict(Tested)
    known = [dataset for own in dataset_groups(rows).values() for dataset in own]
    order = known or list(dict.fromkeys(name for row in rows for name in row.prediction_files))
    tests = [(row, dataset) for row in rows for dataset in order if dataset in row.prediction_files]
    for row, dataset in track(tests, "Dividing into groups", len(tests), "tables"):
        rules = row.scoring_rules(dataset)
        expected = row.expected_frames(dataset)
        if attributes is not None:
            expected = attributes.join(expected)
        expected = _with_text(expected, column, dataset)
        frames = row.ranked_frames(dataset, expected)
        ((_, scored),) = scores_by_dataset(frames, rules["naming"])
        groups = split_groups(scored, column, rules["video_score"], rules["definitions"])
        threshold = (rules["thresholds"] or {}).get("video")
        cell = tested[row.label, dataset]
        cell.groups = cell.groups or groups
        cell.coverage = cell.coverage or group_coverage(expected, column, rules["naming"])
        for name, group in groups.items():
            for value, number in group.measured(threshold).items():
                cell.values[value, name].append(number)
        if resamples:
            found = resample_groups(groups, threshold, resamples, dataset)
            for key, samples in found.items():
                cell.samples[key].append(samples)
    tables, lines = [], []
    for value in VALUES:
        columns, cells = _cells(value, tested, order)
        if any(cells.values()):
            tables.append(_table(value, column, columns, cells, _caption(value, tested, resamples)))
        for label, row in cells.items():
            for (dataset, group), cell in row.items():
                where = (label, dataset, column, as_plain_text(group or ""), "video", value)
                ends = cell.value, cell.deviation, cell.low, cell.high
                covered = (
                    (None, None) if group is None else tested[label, dataset].covered(value, group)
                )
                lines.append((*where, *ends, columns[dataset, group], *covered))
    return GroupResults(tables, pl.DataFrame(lines, schema=SCHEMA, orient="row"))


def _with_text(frames: pl.DataFrame, column: str, dataset: str) -> pl.DataFrame:
    """The frames with a column as text.

    Raises:
        InputError: they lack it, or it has more than `MOST` values.
    """
    if column not in frames.columns:
        raise InputError(
            f"The predictions on {dataset} have no column {column}",
            "divide by a column of all tests, or give it as attributes=FILE",
        )
    text = pl.col(column).cast(pl.String).fill_null("")
    frames = frames.with_columns(
        pl.when(text == "").then(pl.lit(NONE)).otherwise(text).alias(column)
    )
    if (count := frames[column].n_unique()) > MOST:
        raise InputError(
            f"by={column} would divide {dataset} into {count} groups",
            f"divide by a column with at most {MOST} values",
        )
    return frames


Place = tuple[str, str | None]
"""A dataset and a group; None for the gap between its groups."""


def _cells(
    value: str, tested: Mapping[tuple[str, str], Tested], datasets: Sequence[str]
) -> tuple[dict[Place, str], dict[str, dict[Place, Cell]]]:
    """The columns with their counts of videos, and the cells by row and column."""
    columns: dict[Place, str] = {}
    cells: dict[str, dict[Place, Cell]] = {}
    for (label, dataset), test in tested.items():
        row = cells.setdefault(label, {})
        samples = {
            name: resample_seeds(test.samples[value, name], label)
            for name in test.groups
            if (value, name) in test.samples
        }
        enough = {}
        for name, group in test.groups.items():
            if numbers := test.values.get((value, name)):
                counts = group.counts(value)
                cell = _cell(value, numbers, counts, samples.get(name))
                expected, scored = test.covered(value, name)
                if scored < expected:
                    cell = replace(cell, scored=scored / expected)
                row[dataset, name] = cell
                columns.setdefault((dataset, name), _counted(value, counts))
                if not cell.few and name != UNKNOWN:
                    enough[name] = cell.value
        if len(enough) > 1:
            row[dataset, None] = _gap(enough, samples)
            columns.setdefault((dataset, None), f"of {len(enough)} groups")
    order = sorted(columns, key=lambda place: (datasets.index(place[0]), place[1] is None))
    return {place: columns[place] for place in order}, cells


def _table(
    value: str,
    column: str,
    columns: Mapping[Place, str],
    cells: Mapping[str, Mapping[Place, Cell]],
    caption: str,
) -> Table:
    """The table of one value."""
    names = {
        (dataset, group): f"{dataset} gap" if group is None else f"{dataset}/{group}"
        for dataset, group in columns
    }
    return Table(
        f"{TITLES[value]} by {column}",
        value,
        "video",
        list(names.values()),
        {
            label: {names[place]: cell for place, cell in row.items()}
            for label, row in cells.items()
        },
        caption,
        {names[place]: counts for place, counts in columns.items()},
    )


def _cell(
    value: str, numbers: list[float], counts: Sequence[int], samples: ResampledMetric | None
) -> Cell:
    """The mean over seeds; rates have Wilson's interval, AUCs that of their resamples."""
    mean = float(np.mean(numbers))
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    if min(counts) < MIN_VIDEOS:
        return Cell(mean, deviation, few=True)
    if value != "auc":
        return Cell(mean, deviation, *wilson(mean * counts[0], counts[0]))
    return Cell(
        mean, deviation, *((None, None) if samples is None else percentile_interval(samples))
    )


def _gap(values: Mapping[str, float], samples: Mapping[str, ResampledMetric]) -> Cell:
    """The largest minus the smallest of the values, with the interval of that of resamples."""
    gap = max(values.values()) - min(values.values())
    if not all(name in samples for name in values):
        return Cell(gap)
    drawn = np.array([samples[name] for name in values])
    return Cell(gap, None, *percentile_interval(drawn.max(axis=0) - drawn.min(axis=0)))


def _counted(value: str, counts: Sequence[int]) -> str:
    """The numbers of videos behind a value."""
    kinds = {"auc": ("real", "fake"), "fpr": ("real",), "tpr": ("fake",)}[value]
    numbers = ", ".join(f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True))
    return f"{numbers} videos"


def _caption(value: str, tested: Mapping[tuple[str, str], Tested], resamples: int) -> str:
    """What is compared, and where intervals come from."""
    parts = []
    if value == "auc":
        own, every = (
            list(
                dict.fromkeys(
                    dataset
                    for (_, dataset), test in tested.items()
                    if any((group.all_reals is None) == is_own for group in test.groups.values())
                )
            )
            for is_own in (True, False)
        )
        if own:
            parts.append(f"the fakes of a group against its own reals on {', '.join(own)}")
        if every:
            parts.append(
                "the fakes of a group against all reals of the dataset, as the column does not "
                f"divide both classes, on {', '.join(every)}"
            )
    seeds = [max(map(len, test.values.values())) for test in tested.values()]
    if max(seeds) > 1:
        parts.append("mean ± standard deviation over seeds")
    if value != "auc":
        parts.append("in brackets Wilson's 95 % interval over videos")
    elif resamples:
        parts.append(interval_phrase(seeds, resamples))
    if lost := _without_score(tested):
        parts.append(f"without a scored video: {', '.join(lost)}")
    few = any(
        min(group.counts(value)) < MIN_VIDEOS
        for test in tested.values()
        for name, group in test.groups.items()
        if (value, name) in test.values
    )
    if few:
        parts.append(f"[-]: fewer than {MIN_VIDEOS} videos of a class")
    parts.append(
        f"gap: largest minus smallest value of the groups with at least {MIN_VIDEOS} videos of a "
        "class, which is above 0 by chance, too"
    )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _without_score(tested: Mapping[tuple[str, str], Tested]) -> list[str]:
    """The groups of which no video has a score in some row, with the numbers of their videos."""
    counts = {
        f"{dataset}/{name}": sum(test.coverage.get((name, label), (0, 0))[0] for label in (0, 1))
        for (_, dataset), test in tested.items()
        for name in sorted({name for name, _ in test.coverage if name is not None})
        if name not in test.groups
    }
    return [f"{name} ({count_noun(count, 'video')})" for name, count in counts.items()]
