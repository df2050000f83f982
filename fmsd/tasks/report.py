"""Reporting: the finished runs below a folder as tables and one HTML page."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from fmsd.checks import check_choice
from fmsd.console import print_place, print_table
from fmsd.errors import InputError, sentence
from fmsd.figures import style
from fmsd.metrics.table import LEVELS
from fmsd.ownership import check_replaceable
from fmsd.report.columns import dataset_groups, group_means, with_groups
from fmsd.report.comparability import ColumnNotes, compare_stamps
from fmsd.report.evidence import recompute_rows
from fmsd.report.forgeries import forgery_results, plot_forgeries
from fmsd.report.labels import find_label
from fmsd.report.markup import (
    header,
    latex_tables,
    markdown_tables,
    plain_rows,
    terminal_caption,
    terminal_rows,
)
from fmsd.report.overview import Overview, figure_lines
from fmsd.report.page import report_page
from fmsd.report.resamples import Resamples, resample_rows
from fmsd.report.robustness import robustness_results
from fmsd.report.rows import Row, load_rows
from fmsd.report.sections.papers import papers_markdown
from fmsd.report.summary import (
    all_metric_tables,
    baseline_table,
    with_interval_caption,
)
from fmsd.report.tables import Table, results_table
from fmsd.report.tidy import tidy_results, with_intervals
from fmsd.runs.folder import write_text
from fmsd.runs.papers import CitedPapers, bibliography, is_written_by
from fmsd.tables import read_csv

log = logging.getLogger(__name__)

FILES = {
    "dataset": ("results.csv", "results.md", "results.tex", "report.html"),
    "domain": ("domains.csv", "domains.md", "domains.tex", "domains.png"),
}
"""Files of a report by what its columns are."""

BIBLIOGRAPHY, WRITER = "references.bib", "fmsd report"
"""The file with the papers behind the runs, and the writer that its first line names."""


def report(
    runs: Path,
    metric: str = "auc",
    out: Path | None = None,
    by: str = "dataset",
    against: str | None = None,
    differ: Sequence[str] = (),
    resamples: int = 1000,
) -> pl.DataFrame:
    """Prints a table per level over all finished runs below a folder, and writes a report.

    Every value is computed from the predictions of the runs, see `fmsd.report.evidence`.
    Values are means over seeds, with standard deviations. Runs are seeds of one row exactly if
    their overrides differ in nothing but the seed. A column holds results of one protocol stamp.

    Args:
        runs: folder of runs.
        metric: the metric of the main tables.
        out: folder for the files of `FILES`, of which the first holds the tidy results of all runs,
            and by dataset for `BIBLIOGRAPHY`; None to only print.
        by: what a column is: a test dataset (`dataset`), or a forgery in it (`domain`), computed
            from the predictions of the runs.
        against: label of a baseline row, or a part of no other label: adds the differences of all
            rows from it, by a paired bootstrap over videos.
        differ: facts of the protocol that may differ within a column, `all` for every one; such
            results are marked.
        resamples: resamples of the videos, for intervals and differences; 0 for none.

    Returns:
        The tidy results.

    Raises:
        InputError: no finished run, results that are not comparable, an unknown metric or row,
            predictions that cannot be used or do not give the recorded results, or files in `out`
            that no report wrote.
    """
    check_report_arguments(out, by, against, resamples)
    rows, notes, baseline = load_results(runs, metric, against, differ)
    tidy = tidy_results(rows)
    if by == "domain":
        return report_forgeries(runs, rows, metric, notes, out, resamples)

    groups = dataset_groups(rows)
    means = group_means(groups, rows)
    tables = {
        level: with_groups(results_table(tidy, metric, level, means, {}, notes), groups)
        for level in LEVELS
    }
    if out is None and baseline is None:
        print_tables(tables.values(), len(rows), runs)
        return tidy

    lines = {} if out is None else figure_lines(tables["video"])
    statistics = row_statistics(rows, metric, resamples, lines)
    samples = statistics.samples
    for level in LEVELS:
        table = results_table(tidy, metric, level, means, samples, notes)
        tables[level] = with_interval_caption(with_groups(table, groups), rows, resamples)
    differences = []
    if baseline is not None:
        differences = [
            baseline_table(tables[level], baseline, means, samples, rows) for level in LEVELS
        ]
    if out is None:
        print_tables((*tables.values(), *differences), len(rows), runs)
        return tidy

    robustness, robustness_notes = robustness_results(rows, differ)
    overview = Overview(
        folder=runs,
        rows=rows,
        tables=all_metric_tables(tidy, tables, metric, means, notes, groups),
        differences=differences,
        lines=lines,
        resamples=statistics,
        notes=notes,
        robustness=robustness,
        robustness_notes=robustness_notes,
    )
    return write_report(out, overview, tidy)


def check_predictions(run: Path, address: str) -> Path:
    """The folder of a run on the Hub, checked to hold the predictions that a report computes from.

    Args:
        run: its folder in the cache.

    Raises:
        InputError: it was pushed without them.
    """
    if not any((run / "predictions").glob("*.parquet")):
        raise InputError(
            f"{address} holds no predictions, from which a report computes every value",
            "see its page for the results, test it with fmsd evaluate and report that, or ask its "
            "owner to push it with predictions=true",
        )
    return run


def row_statistics(
    rows: Sequence[Row], metric: str, resamples: int, lines: Mapping[str, int]
) -> Resamples:
    """Intervals and, where there is a page, what its figures and verdicts need.

    Args:
        lines: the labels in the figures of the page; empty without one.
    """
    return resample_rows(
        rows,
        metric,
        resamples,
        curves_of=lines,
        forgery_metrics=[metric] if lines else [],
        verdicts=bool(lines),
    )


def load_results(
    runs: Path, metric: str, against: str | None, differ: Sequence[str]
) -> tuple[list[Row], ColumnNotes, str | None]:
    """Loads the rows below a folder, with results computed from their predictions.

    What can be refused without predictions is refused before they are read.

    Args:
        runs, metric, against, differ: see `report`.

    Returns:
        The rows, the letters of their results, and the label of the baseline.
    """
    rows = load_rows(runs)
    notes = compare_stamps(rows, differ)
    check_metric(metric, tidy_results(rows))
    baseline = (
        None
        if against is None
        else find_label(against, (row.label for row in rows), (row.setting for row in rows))
    )
    return recompute_rows(rows), notes, baseline


def check_report_arguments(out: Path | None, by: str, against: str | None, resamples: int) -> None:
    """Checks the arguments of a report that do not depend on its runs.

    Raises:
        InputError: the arguments contradict each other, or files in `out` are of another writer.
    """
    check_choice("by", by, FILES)
    if type(resamples) is not int or resamples < 0 or (against is not None and not resamples):
        raise InputError(f"resamples={resamples} leaves nothing to compare by", "give 1000")
    if against is not None and by == "domain":
        raise InputError("against= compares whole datasets", "leave it out, or set by=dataset")
    if out is None:
        return
    if (out / "run.json").exists():
        raise InputError(
            f"out={out} is the folder of a run, whose results.csv would be lost",
            "give another folder",
        )
    files = [out / name for name in FILES[by]]
    remedy = "give another folder as out=FOLDER"
    check_replaceable(files, files[0], _is_report, WRITER, remedy)
    if by == "dataset":
        entries = out / BIBLIOGRAPHY
        check_replaceable(
            [entries], entries, lambda file: is_written_by(file, WRITER), WRITER, remedy
        )


def check_metric(metric: str, tidy: pl.DataFrame) -> None:
    """Checks that there are results of a metric."""
    check_choice("metric", metric, tidy["metric"].unique().sort())


def _is_report(path: Path) -> bool:
    """Whether a file has the columns of a report; results of a single run have no `run`."""
    required = {"dataset", "level", "metric", "value", "run", "seed"}
    return required <= set(read_csv(path, n_rows=0).columns)


def print_tables(tables: Iterable[Table], count: int, runs: Path) -> None:
    """Prints tables on the terminal.

    Args:
        count: number of runs.
    """
    for table in tables:
        caption = terminal_caption(table, count, runs)
        print_table(
            table.title,
            header(table),
            terminal_rows(table),
            caption,
            name="differences" if table.has_differences else "results",
            records=plain_rows(table),
        )


def report_forgeries(
    runs: Path,
    rows: Sequence[Row],
    metric: str,
    notes: ColumnNotes,
    out: Path | None,
    resamples: int,
) -> pl.DataFrame:
    """Prints and writes a report by domain, with the video table as a figure; returns its results.

    Args:
        runs, metric, out, resamples: see `report`.
        notes: letters of the results on whole datasets.
    """
    forgeries = forgery_results(rows, metric, notes, None if out is None else resamples)
    print_tables(forgeries.tables.values(), len(rows), runs)
    if out is not None:
        write_tables(out, FILES["domain"], forgeries.tidy, forgeries.tables.values())
        style.write_png(plot_forgeries(forgeries.tables["video"]), out / "domains.png")
        print_place(f"The tables lie in {out}", out)
    return forgeries.tidy


def write_report(out: Path, overview: Overview, tidy: pl.DataFrame) -> pl.DataFrame:
    """Prints and writes a report by dataset, with its page; returns the results with intervals.

    Raises:
        InputError: a file that the page shows cannot be used; nothing is printed or written.
    """
    page, entries = report_page(overview), report_bibliography(overview)  # read further files
    tidy = with_intervals(tidy, overview.resamples.intervals)
    main = [overview.tables[overview.metric, level] for level in LEVELS]
    print_tables((*main, *overview.differences), len(overview.rows), overview.folder)
    tables = (*main, *overview.differences, *overview.robustness_tables.values())
    write_tables(out, FILES["dataset"], tidy, tables, papers_markdown(overview))
    write_text(out / BIBLIOGRAPHY, entries)
    write_text(out / "report.html", page)
    print_place(f"The report lies in {out}; open {out / 'report.html'} in a browser", out)
    return tidy


def report_bibliography(overview: Overview) -> str:
    """The BibTeX entries of all rows; logs what of them could not be followed."""
    cited = CitedPapers()
    for row in overview.cited_papers.values():
        cited.update(row)
    for skipped in sorted(cited.skipped):
        log.warning(sentence(skipped))
    return bibliography(cited, WRITER)


def write_tables(
    out: Path,
    names: Sequence[str],
    tidy: pl.DataFrame,
    tables: Iterable[Table],
    more: str = "",
) -> None:
    """Writes the tidy results, and the tables as Markdown and LaTeX.

    Args:
        names: of these three files, in this order.
        more: what follows the tables in Markdown.
    """
    tables = [table for table in tables if table.cells]
    write_text(out / names[0], tidy.write_csv())
    write_text(out / names[1], markdown_tables(tables) + more)
    write_text(out / names[2], latex_tables(tables))
