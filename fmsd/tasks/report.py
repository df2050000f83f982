"""Reporting: the finished runs below a folder as tables and one HTML page."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from fmsd.console import print_place, print_table
from fmsd.errors import InputError, sentence
from fmsd.figures import style
from fmsd.metrics.table import LEVELS
from fmsd.report.arguments import (
    BIBLIOGRAPHY,
    FILES,
    GROUP_FILES,
    WRITER,
    check_attributes,
    check_column,
    check_metric,
    check_report_arguments,
)
from fmsd.report.attributes import Attributes
from fmsd.report.columns import dataset_groups, group_means
from fmsd.report.comparability import ColumnNotes, compare_stamps
from fmsd.report.differences import baseline_table
from fmsd.report.evidence import recompute_rows
from fmsd.report.forgeries import forgery_results, plot_forgeries
from fmsd.report.groups import GroupResults, group_results
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
from fmsd.report.suites import warn_of_incomplete_suites
from fmsd.report.summary import (
    all_metric_tables,
    level_tables,
    with_interval_caption,
)
from fmsd.report.tables import Table
from fmsd.report.tidy import tidy_results, with_intervals
from fmsd.runs.folder import write_text
from fmsd.runs.papers import CitedPapers, bibliography

log = logging.getLogger(__name__)


def report(
    runs: Path,
    metric: str = "auc",
    out: Path | None = None,
    by: str = "dataset",
    against: str | None = None,
    differ: Sequence[str] = (),
    resamples: int = 1000,
    holm: str = "column",
    attributes: Path | None = None,
) -> pl.DataFrame:
    """Prints a table per level over all finished runs below a folder, and writes a report.

    Every value is computed from the predictions of the runs, see `fmsd.report.evidence`, as a mean
    over seeds. Runs are seeds of one row exactly if their overrides differ in nothing but the seed.
    A column holds results of one protocol stamp.

    Args:
        runs: folder of runs.
        metric: the metric of the main tables.
        out: folder for the files of `FILES`, of which the first holds the tidy results of all runs,
            and by dataset for `BIBLIOGRAPHY`; None to only print.
        by: what a column is: a test dataset (`dataset`), a forgery in it (`domain`), or a group of
            its videos by any other column of the predictions or of `attributes`.
        against: a row, by its label or a part of no other: adds the differences of all from it.
        differ: facts that may differ within a column and are then marked, `all` for every one.
        resamples: resamples of the videos, for intervals and differences; 0 for none.
        holm: p-values of differences are corrected within a `column`, or for all of the `table`.
        attributes: a table with attributes of videos, see `fmsd.report.attributes`.

    Returns:
        The tidy results.

    Raises:
        InputError: no finished run, results that are not comparable, an unknown metric or row,
            predictions that cannot be used or do not give the recorded results, or files in `out`
            that no report wrote.
    """
    check_report_arguments(out, by, against, resamples, holm)
    known = None if attributes is None else check_attributes(attributes, by, out)
    rows, notes, baseline = load_results(runs, metric, against, differ, by, known)
    tidy = tidy_results(rows)
    if by == "domain":
        return report_forgeries(runs, rows, metric, notes, out, resamples)
    if by != "dataset":
        return report_groups(runs, rows, by, out, resamples, known)
    groups = dataset_groups(rows)
    means = group_means(groups, rows)
    tables = level_tables(tidy, metric, means, {}, notes, groups)
    if out is None and baseline is None:
        print_tables(tables.values(), len(rows), runs)
        return tidy
    lines = {} if out is None else figure_lines(tables["video"])
    statistics = row_statistics(rows, metric, resamples, lines, paired=baseline is not None)
    tables = level_tables(tidy, metric, means, statistics.samples, notes, groups)
    for level, table in tables.items():
        tables[level] = with_interval_caption(table, rows, resamples)
    differences = [
        baseline_table(table, baseline, means, statistics, rows, holm)
        for table in tables.values()
        if baseline is not None
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
        groups=attribute_groups(rows, resamples, known),
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
    rows: Sequence[Row], metric: str, resamples: int, lines: Mapping[str, int], paired: bool
) -> Resamples:
    """Intervals and, where there is a page, what its figures and further sections need.

    Args:
        lines: the labels in the figures of the page; empty without one.
        paired: whether rows are compared with a baseline.
    """
    return resample_rows(
        rows,
        metric,
        resamples,
        curves_of=lines,
        forgery_metrics=[metric] if lines else [],
        verdicts=bool(lines),
        paired=paired and metric == "auc",
        statistics=bool(lines),
    )


def load_results(
    runs: Path,
    metric: str,
    against: str | None,
    differ: Sequence[str],
    by: str,
    attributes: Attributes | None,
) -> tuple[list[Row], ColumnNotes, str | None]:
    """Loads the rows below a folder, with results computed from their predictions.

    What can be refused without predictions is refused before they are read.

    Args:
        runs, metric, against, differ, by, attributes: see `report`.

    Returns:
        The rows, the letters of their results, and the label of the baseline.
    """
    rows = load_rows(runs)
    warn_of_incomplete_suites(rows)
    notes = compare_stamps(rows, differ)
    check_metric(metric, tidy_results(rows))
    check_column(by, rows, attributes)
    baseline = (
        None
        if against is None
        else find_label(against, (row.label for row in rows), (row.setting for row in rows))
    )
    return recompute_rows(rows), notes, baseline


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
        if forgeries.tables["video"].cells:
            style.write_png(plot_forgeries(forgeries.tables["video"]), out / "domains.png")
        print_place(f"The tables lie in {out}", out)
    return forgeries.tidy


def report_groups(
    runs: Path,
    rows: Sequence[Row],
    by: str,
    out: Path | None,
    resamples: int,
    attributes: Attributes | None,
) -> pl.DataFrame:
    """Prints and writes a report by groups of videos; returns its results.

    Args:
        runs, by, out, resamples: see `report`.
    """
    found = group_results(rows, by, resamples, attributes)
    for table in found.tables:
        caption = f"{terminal_caption(table, len(rows), runs)}\n{table.caption}"
        records = plain_rows(table)
        print_table(
            table.title,
            header(table),
            terminal_rows(table),
            caption,
            name="groups",
            records=records,
        )
    if out is not None:
        write_tables(out, GROUP_FILES, found.tidy, found.tables)
        print_place(f"The tables lie in {out}", out)
    return found.tidy


def attribute_groups(
    rows: Sequence[Row], resamples: int, attributes: Attributes | None
) -> dict[str, GroupResults]:
    """The results by group of every attribute."""
    names = attributes.names if attributes else []
    return {name: group_results(rows, name, resamples, attributes) for name in names}


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
