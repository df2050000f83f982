"""Reporting: many runs as tables and one page, rows what was varied, columns the test datasets or the forgeries in them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from fmsd.console import show
from fmsd.errors import InputError
from fmsd.figures import merges, style
from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS
from fmsd.metrics.table import LEVELS
from fmsd.ownership import check_replaceable
from fmsd.report import sections
from fmsd.report.comparability import Marks, marked
from fmsd.report.resamples import Evidence, gathered
from fmsd.report.rows import Trial, trials
from fmsd.report.tables import (
    LOWER,
    NAMES,
    SEEN,
    UNSEEN,
    Means,
    Table,
    differences_table,
    headed,
    latex,
    page,
    plain,
    results_table,
)
from fmsd.runs.folder import CORRUPTIONS, read_results, write
from fmsd.tables import read_csv

FILES = {"dataset": "results", "domain": "domains"}
"""What may be a column of the tables, and how the files are called then."""


def report(
    runs: Path,
    metric: str = "auc",
    out: Path | None = None,
    by: str = "dataset",
    against: str | None = None,
    differ: Sequence[str] = (),
    resamples: int = 1000,
) -> pl.DataFrame:
    """Prints a table per level over all finished runs below a folder: mean over seeds, with the standard deviation where there are several.

    Runs are the same row exactly when their overrides differ in nothing but the seed. A column
    holds numbers of one protocol stamp.

    Args:
        out: folder for `results.csv` (tidy, every number of every run), `results.md`, `results.tex`
            and `report.html`; None to only print. By domain the files are `domains.csv`, `.md`,
            `.tex` and `.png`.
        by: columns are test datasets (`dataset`), or the forgeries in them (`domain`), computed
            from the runs' predictions.
        against: a row's label, or a part of no other's: how much better than it the others are, by
            a paired bootstrap over videos.
        differ: facts of the protocol that may differ within a column, `all` for every one; such
            numbers are marked.
        resamples: of the videos, for the intervals in the files and the differences; 0 for none.

    Raises:
        InputError: no finished run, numbers that must not be compared, an unknown metric or row,
            predictions that cannot be used, or files in `out` that no report wrote.
    """
    if by not in FILES:
        raise InputError(f"by={by} is unknown", f"choose one of {', '.join(FILES)}")
    if resamples < 0 or (against is not None and not resamples):
        raise InputError(f"resamples={resamples} leaves nothing to compare by", "give 1000")
    if against is not None and by == "domain":
        raise InputError("against= compares whole datasets", "leave it out, or set by=dataset")
    if out is not None and (out / "run.json").exists():
        raise InputError(
            f"out={out} is the folder of a run, whose results.csv would be lost",
            "give another folder",
        )
    if out is not None:
        endings = (".csv", ".md", ".tex", ".png" if by == "domain" else ".html")
        files = [
            out / ("report.html" if ending == ".html" else f"{FILES[by]}{ending}")
            for ending in endings
        ]
        check_replaceable(
            files, files[0], _is_report, "fmsd report", "give another folder as out=FOLDER"
        )
    found = trials(runs)
    marks = marked(found, differ)
    tidy = pl.concat([_named(trial.results, trial) for trial in found], how="diagonal")
    if metric not in tidy["metric"]:
        raise InputError(
            f"metric={metric} is unknown",
            f"choose one of {', '.join(tidy['metric'].unique().sort())}",
        )
    if by == "domain":
        return by_forgery(found, metric, marks, out, runs, resamples)
    means, base = seen_and_unseen(found), None if against is None else row_of(against, found)
    tables = {level: results_table(tidy, metric, level, means, {}, marks) for level in LEVELS}
    shown = sections.pictured(tables["video"])
    evidence, differences = None, []
    if out is not None or base is not None:
        evidence = gathered(found, metric, resamples, None if out is None else shown)
        tidy = _with_reals(tidy, evidence.reals)
        tables = {
            level: _told(
                results_table(tidy, metric, level, means, evidence.samples, marks), found, resamples
            )
            for level in LEVELS
        }
        differences = (
            []
            if base is None
            else [_difference(tables[level], base, means, evidence, found) for level in LEVELS]
        )
    for table in (*tables.values(), *differences):
        show(table.title, headed(table), plain(table), _caption(table, len(found), runs))
    if out is not None and evidence is not None:
        every = _every(tidy, tables, metric, means, marks)
        overview = sections.Overview(
            runs, found, every, differences, shown, evidence, marks, *stressed(found, differ)
        )
        with_ends = _with_ends(tidy, evidence.intervals)
        write(out / "results.csv", with_ends.write_csv())
        write(
            out / "results.md", page([*tables.values(), *differences, *overview.corrupted.values()])
        )
        write(
            out / "results.tex",
            latex([*tables.values(), *differences, *overview.corrupted.values()]),
        )
        write(out / "report.html", sections.page(overview))
        print(f"The report lies in {out}; open {out / 'report.html'} in a browser")
        return with_ends
    return tidy


def _is_report(path: Path) -> bool:
    """Whether a table of results has the columns of a report; that of a run has no rows to tell apart."""
    return {"dataset", "level", "metric", "value", "run", "seed"} <= set(
        read_csv(path, n_rows=0).columns
    )


def by_forgery(
    found: Sequence[Trial], metric: str, marks: Marks, out: Path | None, runs: Path, resamples: int
) -> pl.DataFrame:
    """The tables whose columns are forgeries, from predictions alone; as for datasets, with intervals where they are written."""
    evidence = gathered(found, metric, 0 if out is None else resamples, forgeries=True)
    names = pl.format("{}/{}", "dataset", "domain")
    marks = marks.at(evidence.domains.select("dataset", names.alias("column")).iter_rows())
    tidy = evidence.domains.with_columns(names.alias("dataset"), whole="dataset")
    tables = [results_table(tidy, metric, level, {}, evidence.samples, marks) for level in LEVELS]
    if out is not None:
        tables = [_told(table, found, resamples) for table in tables]
        tidy = _with_ends(tidy, evidence.intervals)
    tidy = tidy.with_columns(dataset="whole").drop("whole")
    for table in tables:
        show(table.title, headed(table), plain(table), _caption(table, len(found), runs))
    if out is not None:
        write(out / "domains.csv", tidy.write_csv())
        write(out / "domains.md", page(tables))
        write(out / "domains.tex", latex(tables))
        videos = tables[-1]
        values = [
            [own[column].value if column in own else float("nan") for column in videos.columns]
            for own in videos.cells.values()
        ]
        name = "AUC" if metric == "auc" else NAMES.get(metric, metric)
        inverted = [
            (row, videos.columns.index(column))
            for row, own in enumerate(videos.cells.values())
            for column, cell in own.items()
            if cell.inverted
        ]
        style.write(
            merges.domain_matrix(list(videos.cells), videos.columns, values, name, inverted),
            out / "domains.png",
        )
        print(f"The tables lie in {out}")
    return tidy


def seen_and_unseen(found: Sequence[Trial]) -> dict[str, list[str]]:
    """The test datasets that some row was trained on frames of, and those that none was; each where they are several and every row has them."""
    trained = {
        name for trial in found for facts in trial.facts().values() for name in facts["train"]
    }
    datasets = (
        {}
        if "unknown" in trained
        else dict.fromkeys(dataset for trial in found for dataset in trial.places)
    )
    means = {
        SEEN: [dataset for dataset in datasets if dataset in trained],
        UNSEEN: [dataset for dataset in datasets if dataset not in trained],
    }
    return {
        name: own
        for name, own in means.items()
        if len(own) > 1 and all(dataset in trial.places for trial in found for dataset in own)
    }


def row_of(words: str, found: Sequence[Trial]) -> str:
    """The label of a row, or the only one that contains some words.

    Raises:
        InputError: there is none, or several.
    """
    labels = dict.fromkeys(trial.label for trial in found)
    fitting = [words] if words in labels else [label for label in labels if words in label]
    if len(fitting) != 1:
        raise InputError(
            f"against={words} is {'several rows' if fitting else 'no row'}",
            f"name one of {'; '.join(fitting or labels)}",
        )
    return fitting[0]


def stressed(found: Sequence[Trial], differ: Sequence[str]) -> tuple[pl.DataFrame | None, Marks]:
    """The results under corruptions with run and seed, and their marks; the newest evaluation of a corruption's severity counts.

    Raises:
        InputError: numbers that must not be compared.
    """
    parts, clean = [], []
    for trial in found:
        known: list[pl.DataFrame] = []
        for run in trial.runs:
            path = run.folder / CORRUPTIONS
            if not path.is_file():
                continue
            table = read_results(path, ("corruption", "severity"))
            new = (
                table.join(
                    pl.concat(known),
                    on=["dataset", "corruption", "severity"],
                    how="anti",
                    maintain_order="left",
                )
                if known
                else table
            )
            if new.is_empty():
                continue
            known.append(new)
            parts.append(_named(new, trial))
            places = dict.fromkeys(table["dataset"].unique(), run.folder / "predictions" / "clean")
            clean.append(replace(trial, results=table.filter(severity=0), places=places))
    if not parts:
        return None, Marks()
    return pl.concat(parts, how="diagonal"), marked(clean, differ)


def _with_reals(tidy: pl.DataFrame, reals: pl.DataFrame) -> pl.DataFrame:
    """The numbers with those of real videos also where a run of an older version did not write them down."""
    joined = tidy.join(
        reals,
        on=["run", "seed", "dataset"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
        suffix="_counted",
    )
    return joined.with_columns(
        pl.coalesce("n_real_videos", "n_real_videos_counted").alias("n_real_videos")
    ).drop("n_real_videos_counted")


def _with_ends(tidy: pl.DataFrame, intervals: pl.DataFrame) -> pl.DataFrame:
    """The numbers with the ends of their intervals, empty where they have none."""
    return tidy.join(
        intervals,
        on=["run", "seed", "dataset", "level", "metric"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )


def _named(table: pl.DataFrame, trial: Trial) -> pl.DataFrame:
    return table.with_columns(
        run=pl.lit(trial.label),
        seed=pl.lit(trial.seed, pl.Int64),
        settings=pl.lit(trial.settings, pl.String),
    )


def _every(
    tidy: pl.DataFrame, tables: dict[str, Table], metric: str, means: Means, marks: Marks
) -> dict[tuple[str, str], Table]:
    """The tables of all metrics, the reported one first, videos before frames."""
    others = [
        name for name in (*METRICS, *THRESHOLD_METRICS) if name in tidy["metric"] and name != metric
    ]
    made = {(metric, level): tables[level] for level in reversed(LEVELS)}
    return made | {
        (name, level): _noted(results_table(tidy, name, level, means, {}, marks), "")
        for name in others
        for level in reversed(LEVELS)
    }


def _told(table: Table, found: Sequence[Trial], resamples: int) -> Table:
    """The table with what its numbers are."""
    spread = "mean ± standard deviation over seeds" if len(found) > len(table.cells) else ""
    ends = (
        f"in brackets the 95 % interval over {resamples:,} resamples of the videos"
        if resamples
        else ""
    )
    return _noted(table, "; ".join(part for part in (spread, ends) if part))


def _noted(table: Table, text: str) -> Table:
    """The table with a caption, which says so where low values are good."""
    lower = "lower is better" if table.metric in LOWER else ""
    said = "; ".join(part for part in (text, lower) if part)
    return replace(table, caption=said and f"{said[0].upper()}{said[1:]}.")


def _difference(
    table: Table, base: str, means: Means, evidence: Evidence, found: Sequence[Trial]
) -> Table:
    """The table's rows less one of them, where they were tested on the same videos."""

    def videos(row: str, dataset: str) -> set[tuple[str, str] | None]:
        return {
            trial.videos(dataset) if dataset in trial.places else None
            for trial in found
            if trial.label == row
        }

    def same(row: str, dataset: str) -> bool:
        own = videos(row, dataset)
        return len(own) == 1 and None not in own and own == videos(base, dataset)

    made = differences_table(table, base, means, evidence.samples, same)
    what = (
        "paired bootstrap over videos: difference, 95 % interval and two-sided p, of these "
        "trained weights, not of other seeds"
    )
    counts = [
        count
        for column in made.columns
        if (
            count := sum(column in own and own[column].p is not None for own in made.cells.values())
        )
    ]
    if counts and max(counts) > 1:
        many = (
            f"{max(counts)} comparisons"
            if min(counts) == max(counts)
            else f"{min(counts)} to {max(counts)} comparisons"
        )
        what += (
            f"; p corrected by Holm's method for the {many} of a column, of {sum(counts)} in "
            "this table"
        )
    elif counts:
        what += f"; one comparison in a column, {sum(counts)} in this table"
    return _noted(made, f"{what}; - where the videos are not the same")


def _caption(table: Table, count: int, runs: Path) -> str:
    """The lines below a table on the terminal."""
    compared = (
        [table.caption]
        if any(cell.signed for own in table.cells.values() for cell in own.values())
        else []
    )
    lacking = [table.lacking] if table.lacking else []
    notes = [f"^{letter} {meaning}" for letter, meaning in table.notes]
    return "\n".join([f"{sections.plural(count, 'run')} below {runs}", *compared, *lacking, *notes])
