"""Tables of a report: rows what was varied, columns the test datasets; as text, Markdown and LaTeX."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from jaxtyping import Float64

from fmsd.metrics.interval import (
    MIN_VIDEOS,
    enough_videos,
    holm_correction,
    paired_difference,
    percentile_interval,
)
from fmsd.metrics.table import escape_markdown, format_video_counts, markdown_table
from fmsd.report.comparability import Marks, united

LOWER = frozenset({"eer", "brier", "ece"})
"""Metrics of which a low value is good; of the others a high one is."""

CHANCE: Mapping[str, float] = {"auc": 0.5, "bacc": 0.5, "bacc_val": 0.5, "eer": 0.5}
"""What a detector that knows nothing has, whatever the data; no number on the wrong side of it is the best."""

NAMES: Mapping[str, str] = {
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
"""Metrics in words."""

SEEN, UNSEEN = "mean of the seen", "mean of the unseen"
"""The columns over the datasets that some row was trained on frames of, and over those that none was."""

Means = Mapping[str, Sequence[str]]
"""The datasets that a column is the mean of, by its name."""

Samples = Mapping[tuple[str, str, str], Float64[np.ndarray, " resamples"]]
"""A metric on the resamples of a dataset's videos, by row, dataset and level; of several seeds their mean."""


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Args:
        value: the mean over seeds.
        deviation: the standard deviation over seeds; None of a single one.
        low, high: the ends of the interval, where there is one.
        p: of a difference: how likely one as large is by chance, corrected for the other
            comparisons of its column.
        best: no other of the column is better, and chance is worse.
        inverted: an AUC whose whole interval lies below chance.
        few: there are too few videos for an interval, a p-value or a mark.
        signed: it is a difference.
        mark: the letters of a note.
        seeds: how many it is a mean over, where the row has more elsewhere.
    """

    value: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    best: bool = False
    inverted: bool = False
    few: bool = False
    signed: bool = False
    mark: str = ""
    seeds: int | None = None

    @property
    def number(self) -> str:
        """The value itself, with its sign where it is a difference."""
        return f"{self.value:+.3f}" if self.signed else f"{self.value:.3f}"

    @property
    def spread(self) -> str:
        """The deviation over seeds, and how many there are where they are too few."""
        few = "" if self.seeds is None else f" ({self.seeds} seed{'' if self.seeds == 1 else 's'})"
        return ("" if self.deviation is None else f" ± {self.deviation:.3f}") + few

    @property
    def ends(self) -> str:
        """The interval; a dash where there are too few videos for one."""
        return (
            ("[-]" if self.few else "")
            if self.low is None or self.high is None
            else f"[{self.low:.3f}, {self.high:.3f}]"
        )

    @property
    def chance(self) -> str:
        """Of a difference the probability."""
        return "" if self.p is None else f"p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'}"

    @property
    def around(self) -> str:
        """All that stands behind the number."""
        return (
            self.spread
            + (f" {self.ends}" if self.ends else "")
            + (f", {self.chance}" if self.chance else "")
        )


@dataclass(frozen=True)
class Table:
    """One metric at one level.

    Args:
        title: what the numbers are.
        cells: by row label and column.
        videos: how many real and fake videos a column's numbers are of, as text.
        lacking: why some numbers have no interval, as a sentence.
        notes: what the letters beside numbers mean.
    """

    title: str
    metric: str
    level: str
    columns: Sequence[str]
    cells: Mapping[str, Mapping[str, Cell]]
    caption: str = ""
    videos: Mapping[str, str] = field(default_factory=dict)
    lacking: str = ""
    notes: Sequence[tuple[str, str]] = ()

    @property
    def sizes(self) -> str:
        """The numbers of test videos as a sentence, for tables whose headers do not have them."""
        parts = [
            f"{column} {self.videos[column].removesuffix(' videos')}"
            for column in self.columns
            if column in self.videos
        ]
        return f"Test videos: {'; '.join(parts)}." if parts else ""


def results_table(
    tidy: pl.DataFrame, metric: str, level: str, means: Means, samples: Samples, marks: Marks
) -> Table:
    """Means over seeds; the best of a column stands out where there are several rows.

    Where a class has fewer than `FEWEST` videos there are no intervals and no marks.

    Args:
        tidy: numbers with the row in the column `run`.
        means: the last columns, each of rows that have all of its datasets.
        samples: for the intervals, of the same metric; none to leave them out.
    """
    shown = tidy.filter(metric=metric, level=level)
    columns = shown["dataset"].unique(maintain_order=True).to_list()
    counts, few, why = format_video_counts(shown), _few(shown), lacking(shown)
    parts = [shown.select("run", "seed", "dataset", "value")]
    for name, datasets in means.items():
        own = (
            shown.filter(pl.col("dataset").is_in(datasets))
            .group_by("run", "seed", maintain_order=True)
            .agg(pl.col("value").mean(), count=pl.len())
        )
        parts.append(
            own.filter(count=len(datasets)).select(
                "run", "seed", pl.lit(name).alias("dataset"), "value"
            )
        )
    shown, columns = pl.concat(parts), [*columns, *means]
    cells: dict[str, dict[str, Cell]] = {}
    seeds = {row: own["seed"].n_unique() for (row,), own in tidy.group_by("run")}
    for (row, column), own in shown.group_by("run", "dataset", maintain_order=True):
        value, deviation = own.select(
            mean=pl.col("value").mean(), deviation=pl.col("value").std()
        ).row(0)
        parts = [(str(row), dataset, level) for dataset in means.get(str(column), [str(column)])]
        lacks = any((row, dataset) in few for _, dataset, _ in parts)
        enough = not lacks and all(part in samples for part in parts)
        low, high = (
            percentile_interval(np.mean([samples[part] for part in parts], axis=0))
            if enough
            else (None, None)
        )
        mark = united(marks.cells.get(part, "") for part in parts)
        fewer = own.height if own.height < seeds[row] else None
        inverted = metric == "auc" and high is not None and high < CHANCE["auc"]
        cells.setdefault(str(row), {})[str(column)] = Cell(
            value, deviation, low, high, inverted=inverted, few=lacks, mark=mark, seeds=fewer
        )
    return Table(
        f"{NAMES.get(metric, metric)} per {level}",
        metric,
        level,
        columns,
        with_best(cells, columns, metric),
        videos=counts,
        lacking=why,
        notes=_used(cells, marks.notes),
    )


def _few(shown: pl.DataFrame) -> dict[tuple[str, str], str]:
    """Row and dataset of tests with too few videos of a class, and how many those are: `1 real`."""
    known = shown.drop_nulls("n_real_videos").with_columns(
        real="n_real_videos", fake=pl.col("n_videos") - pl.col("n_real_videos")
    )
    found = {}
    for (row, dataset), own in known.group_by("run", "dataset", maintain_order=True):
        real, fake = own.select(pl.col("real", "fake").min()).row(0)
        if not enough_videos(real, fake):
            found[row, dataset] = " and ".join(
                f"{count} {kind}"
                for kind, count in (("real", real), ("fake", fake))
                if count < MIN_VIDEOS
            )
    return found


def lacking(tidy: pl.DataFrame) -> str:
    """Why some of the numbers have no interval, as a sentence; empty where all may have one."""
    parts = dict.fromkeys(f"{dataset} has {counts}" for (_, dataset), counts in _few(tidy).items())
    return (
        f"No interval, p-value or mark under {MIN_VIDEOS} videos of a class: {', '.join(parts)}."
        if parts
        else ""
    )


def differences_table(
    table: Table, against: str, means: Means, samples: Samples, same: Callable[[str, str], bool]
) -> Table:
    """What every row of a table has more than one of them, resample by resample, with p-values corrected for the comparisons of a column (Holm).

    Args:
        against: the label of that row.
        same: whether a row was tested on the same videos of a dataset as that row.
    """
    cells: dict[str, dict[str, Cell]] = {}
    for row, own in table.cells.items():
        cells[row] = {}
        for column, cell in own.items():
            datasets = means.get(column, [column])
            if (
                row == against
                or column not in table.cells[against]
                or not all(same(row, dataset) for dataset in datasets)
            ):
                continue
            base = table.cells[against][column]
            difference = Cell(
                cell.value - base.value,
                few=cell.few or base.few,
                signed=True,
                mark=united((cell.mark, base.mark)),
                seeds=cell.seeds or base.seeds,
            )
            if not difference.few:
                if any(
                    (label, dataset, table.level) not in samples
                    for label in (row, against)
                    for dataset in datasets
                ):
                    continue
                one, other = (
                    np.mean([samples[label, dataset, table.level] for dataset in datasets], axis=0)
                    for label in (row, against)
                )
                found = paired_difference(one, other, difference.value)
                difference = replace(difference, low=found.low, high=found.high, p=found.p)
            cells[row][column] = difference
    del cells[against]
    for column in table.columns:
        rows = [row for row, own in cells.items() if column in own and own[column].p is not None]
        for row, p in zip(
            rows, holm_correction([cells[row][column].p or 0.0 for row in rows]), strict=True
        ):
            cells[row][column] = replace(cells[row][column], p=p)
    return replace(
        table,
        title=f"{table.title} minus that of {against}",
        cells=cells,
        notes=_used(cells, table.notes),
    )


def with_best(
    cells: Mapping[str, Mapping[str, Cell]], columns: Sequence[str], metric: str
) -> dict[str, dict[str, Cell]]:
    """The cells, those marked that no other of their column is better than, to the digits that are shown; none in a column of one.

    A mean over fewer seeds than its row has elsewhere takes no part, and neither does a number of
    few videos. What is no better than chance is not marked.
    """
    sign = -1 if metric in LOWER else 1

    def rank(cell: Cell) -> float | None:
        return None if cell.few or cell.seeds is not None else sign * round(cell.value, 3)

    best: dict[str, float | None] = {}
    for column in columns:
        ranks = [
            found
            for own in cells.values()
            if column in own and (found := rank(own[column])) is not None
        ]
        best[column] = (
            max(ranks)
            if len(ranks) > 1 and (metric not in CHANCE or max(ranks) > sign * CHANCE[metric])
            else None
        )
    return {
        row: {
            column: replace(cell, best=best[column] is not None and rank(cell) == best[column])
            for column, cell in own.items()
        }
        for row, own in cells.items()
    }


def headed(table: Table) -> list[str]:
    """The header for the terminal: the columns with their numbers of videos below."""
    return [
        "",
        *(
            f"{column}\n{table.videos[column]}" if column in table.videos else column
            for column in table.columns
        ),
    ]


def plain(table: Table) -> list[list[str]]:
    """Rows for the terminal."""
    return _rows(
        table,
        str,
        lambda cell: (
            f"{cell.number}{cell.around}{' (inverted)' if cell.inverted else ''}{f' ^{cell.mark}' if cell.mark else ''}"
        ),
    )


def page(tables: Sequence[Table]) -> str:
    """Tables as Markdown."""

    def one(cell: Cell) -> str:
        number = f"**{cell.number}**" if cell.best else cell.number
        return f"{number}{cell.around}{' (inverted)' if cell.inverted else ''}{f'<sup>{cell.mark}</sup>' if cell.mark else ''}"

    parts = []
    for table in tables:
        notes = "".join(
            f"\n<sup>{letter}</sup> {escape_markdown(meaning)}  " for letter, meaning in table.notes
        )
        text = markdown_table(
            ["", *map(escape_markdown, table.columns)], _rows(table, escape_markdown, one)
        )
        below = " ".join(
            part
            for part in (
                table.caption,
                escape_markdown(table.sizes),
                escape_markdown(table.lacking),
            )
            if part
        )
        parts.append(
            f"## {escape_markdown(table.title)}\n\n{text}"
            + (f"\n{below}\n" if below else "")
            + (f"{notes}\n" if notes else "")
        )
    return "\n".join(parts)


def latex(tables: Sequence[Table]) -> str:
    """Tables as LaTeX for the package booktabs."""

    def one(cell: Cell) -> str:
        number = (
            f"\\textbf{{{cell.number}}}"
            if cell.best
            else f"${cell.number}$"
            if cell.signed
            else cell.number
        )
        around = escaped(cell.around.strip()).replace("±", "$\\pm$").replace("-", "$-$")
        small = f" {{\\scriptsize {around}}}" if around else ""
        mark = f"$^{{{cell.mark}}}$" if cell.mark else ""
        return f"{number}{small}{' (inverted)' if cell.inverted else ''}{mark}"

    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        header = " & ".join(["", *(escaped(column) for column in table.columns)])
        lines = [
            " & ".join(row) for row in _rows(table, lambda label: f"{{}}{escaped(label)}", one)
        ]  # {}: a [ after \\ would be its argument
        notes = " ".join(f"$^{{{letter}}}$~{escaped(meaning)}." for letter, meaning in table.notes)
        said = " ".join(
            escaped(part) for part in (table.caption, table.sizes, table.lacking) if part
        )
        caption = f"{escaped(table.title)}. {said} {notes}".strip().replace("±", "$\\pm$")
        parts.append(
            "\n".join(
                [
                    "\\begin{table}",
                    "\\centering",
                    f"\\caption{{{caption}}}",
                    f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
                    "\\toprule",
                    f"{header} \\\\",
                    "\\midrule",
                    *(f"{line} \\\\" for line in lines),
                    "\\bottomrule",
                    "\\end{tabular}",
                    "\\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
} | {char: f"\\{char}" for char in "&%$#_{}"}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands, in one line."""
    return re.sub(r"[\\~^<>&%$#_{}]", lambda found: TEX[found[0]], " ".join(text.split()))


def _rows(
    table: Table, labelled: Callable[[str], str], one: Callable[[Cell], str]
) -> list[list[str]]:
    return [
        [labelled(row), *(one(own[column]) if column in own else "-" for column in table.columns)]
        for row, own in table.cells.items()
    ]


def _used(
    cells: Mapping[str, Mapping[str, Cell]], notes: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The notes of the letters that the cells bear."""
    used = {
        letter for own in cells.values() for cell in own.values() for letter in cell.mark.split(",")
    }
    return [(letter, meaning) for letter, meaning in notes if letter in used]
