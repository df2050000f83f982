"""Tables of a report: rows what was varied, columns the test datasets; as text, Markdown and LaTeX."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float64

from fmsd.metrics.interval import interval, paired
from fmsd.metrics.table import markdown
from fmsd.report.comparison import Marks, united

LOWER = frozenset({"eer", "brier", "ece"})
"""Metrics of which a low value is good; of the others a high one is."""

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
        p: of a difference: how likely one as large is by chance.
        best: no other of the column is better.
        inverted: an AUC below chance.
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
    mark: str = ""
    seeds: int | None = None

    @property
    def number(self) -> str:
        """The value itself, with its sign where it is a difference."""
        return f"{self.value:.3f}" if self.p is None else f"{self.value:+.3f}"

    @property
    def spread(self) -> str:
        """The deviation over seeds, and how many there are where they are too few."""
        few = "" if self.seeds is None else f" ({self.seeds} seed{'' if self.seeds == 1 else 's'})"
        return ("" if self.deviation is None else f" ± {self.deviation:.3f}") + few

    @property
    def ends(self) -> str:
        """The interval."""
        return "" if self.low is None or self.high is None else f"[{self.low:.3f}, {self.high:.3f}]"

    @property
    def chance(self) -> str:
        """Of a difference the probability."""
        return "" if self.p is None else f"p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'}"

    @property
    def around(self) -> str:
        """All that stands behind the number."""
        return self.spread + (f" {self.ends}" if self.ends else "") + (f", {self.chance}" if self.chance else "")


@dataclass(frozen=True)
class Table:
    """One metric at one level.

    Args:
        title: what the numbers are.
        cells: by row label and column.
        notes: what the letters beside numbers mean.
    """

    title: str
    metric: str
    level: str
    columns: Sequence[str]
    cells: Mapping[str, Mapping[str, Cell]]
    caption: str = ""
    notes: Sequence[tuple[str, str]] = ()


def results_table(tidy: pl.DataFrame, metric: str, level: str, means: Means, samples: Samples, marks: Marks) -> Table:
    """Means over seeds; the best of a column stands out where there are several rows.

    Args:
        tidy: numbers with the row in the column `run`.
        means: the last columns, each of rows that have all of its datasets.
        samples: for the intervals, of the same metric; none to leave them out.
    """
    shown = tidy.filter(metric=metric, level=level)
    columns = shown["dataset"].unique(maintain_order=True).to_list()
    parts = [shown.select("run", "seed", "dataset", "value")]
    for name, datasets in means.items():
        own = shown.filter(pl.col("dataset").is_in(datasets)).group_by("run", "seed", maintain_order=True).agg(pl.col("value").mean(), count=pl.len())
        parts.append(own.filter(count=len(datasets)).select("run", "seed", pl.lit(name).alias("dataset"), "value"))
    shown, columns = pl.concat(parts), [*columns, *means]
    cells: dict[str, dict[str, Cell]] = {}
    seeds = {row: own["seed"].n_unique() for (row,), own in tidy.group_by("run")}
    for (row, column), own in shown.group_by("run", "dataset", maintain_order=True):
        value, deviation = own.select(mean=pl.col("value").mean(), deviation=pl.col("value").std()).row(0)
        parts = [(str(row), dataset, level) for dataset in means.get(str(column), [str(column)])]
        low, high = interval(np.mean([samples[part] for part in parts], axis=0)) if all(part in samples for part in parts) else (None, None)
        mark = united(marks.cells.get(part, "") for part in parts)
        few = own.height if own.height < seeds[row] else None
        cells.setdefault(str(row), {})[str(column)] = Cell(
            value, deviation, low, high, inverted=metric == "auc" and value < 0.5, mark=mark, seeds=few
        )
    return Table(
        f"{NAMES.get(metric, metric)} per {level}", metric, level, columns, with_best(cells, columns, metric), notes=_used(cells, marks.notes)
    )


def differences_table(table: Table, against: str, means: Means, samples: Samples, same: Callable[[str, str], bool]) -> Table:
    """What every row of a table has more than one of them, resample by resample.

    Args:
        against: the label of that row.
        same: whether a row was tested on the same videos of a dataset as that row.
    """
    cells: dict[str, dict[str, Cell]] = {}
    for row, own in table.cells.items():
        cells[row] = {}
        for column, cell in own.items():
            datasets = means.get(column, [column])
            if row == against or column not in table.cells[against] or not all(same(row, dataset) for dataset in datasets):
                continue
            one, other = (np.mean([samples[label, dataset, table.level] for dataset in datasets], axis=0) for label in (row, against))
            base = table.cells[against][column]
            found = paired(one, other, cell.value - base.value)
            mark, few = united((cell.mark, base.mark)), cell.seeds or base.seeds
            cells[row][column] = Cell(found.value, low=found.low, high=found.high, p=found.p, mark=mark, seeds=few)
    del cells[against]
    return replace(table, title=f"{table.title} minus that of {against}", cells=cells, notes=_used(cells, table.notes))


def with_best(cells: Mapping[str, Mapping[str, Cell]], columns: Sequence[str], metric: str) -> dict[str, dict[str, Cell]]:
    """The cells, those marked that no other of their column is better than, to the digits that are shown; none in a column of one.

    A mean over fewer seeds than its row has elsewhere takes no part.
    """
    best = {}
    for column in columns:
        values = [round(own[column].value, 3) for own in cells.values() if column in own and own[column].seeds is None]
        best[column] = (min if metric in LOWER else max)(values) if len(values) > 1 else None
    return {
        row: {column: replace(cell, best=cell.seeds is None and round(cell.value, 3) == best[column]) for column, cell in own.items()}
        for row, own in cells.items()
    }


def plain(table: Table) -> list[list[str]]:
    """Rows for the terminal."""
    return _rows(
        table, str, lambda cell: f"{cell.number}{cell.around}{' (inverted)' if cell.inverted else ''}{f' ^{cell.mark}' if cell.mark else ''}"
    )


def page(tables: Sequence[Table]) -> str:
    """Tables as Markdown."""

    def one(cell: Cell) -> str:
        number = f"**{cell.number}**" if cell.best else cell.number
        return f"{number}{cell.around}{' (inverted)' if cell.inverted else ''}{f'<sup>{cell.mark}</sup>' if cell.mark else ''}"

    def piped(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

    parts = []
    for table in tables:
        notes = "".join(f"\n<sup>{letter}</sup> {piped(meaning)}  " for letter, meaning in table.notes)
        text = markdown(["", *map(piped, table.columns)], _rows(table, piped, one))
        parts.append(f"## {piped(table.title)}\n\n{text}" + (f"\n{table.caption}\n" if table.caption else "") + (f"{notes}\n" if notes else ""))
    return "\n".join(parts)


def latex(tables: Sequence[Table]) -> str:
    """Tables as LaTeX for the package booktabs."""

    def one(cell: Cell) -> str:
        number = f"\\textbf{{{cell.number}}}" if cell.best else f"${cell.number}$" if cell.p is not None else cell.number
        around = escaped(cell.around.strip()).replace("±", "$\\pm$").replace("-", "$-$")
        small = f" {{\\scriptsize {around}}}" if around else ""
        mark = f"$^{{{cell.mark}}}$" if cell.mark else ""
        return f"{number}{small}{' (inverted)' if cell.inverted else ''}{mark}"

    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        header = " & ".join(["", *(escaped(column) for column in table.columns)])
        lines = [" & ".join(row) for row in _rows(table, lambda label: f"{{}}{escaped(label)}", one)]  # {}: a [ after \\ would be its argument
        notes = " ".join(f"$^{{{letter}}}$~{escaped(meaning)}." for letter, meaning in table.notes)
        caption = f"{escaped(table.title)}. {escaped(table.caption)} {notes}".strip().replace("±", "$\\pm$")
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


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"} | {
    char: f"\\{char}" for char in "&%$#_{}"
}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return re.sub(r"[\\~^<>&%$#_{}]", lambda found: TEX[found[0]], text)


def _rows(table: Table, labelled: Callable[[str], str], one: Callable[[Cell], str]) -> list[list[str]]:
    return [[labelled(row), *(one(own[column]) if column in own else "-" for column in table.columns)] for row, own in table.cells.items()]


def _used(cells: Mapping[str, Mapping[str, Cell]], notes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The notes of the letters that the cells bear."""
    used = {letter for own in cells.values() for cell in own.values() for letter in cell.mark.split(",")}
    return [(letter, meaning) for letter, meaning in notes if letter in used]
