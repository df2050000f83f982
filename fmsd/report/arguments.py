"""Checks of what a report is asked for, before its predictions are read."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.checks import check_choice
from fmsd.data.frame import DIGEST_COLUMNS, SCHEMA
from fmsd.errors import InputError
from fmsd.ownership import check_replaceable
from fmsd.report.attributes import Attributes, read_attributes
from fmsd.report.groups import group_columns
from fmsd.report.rows import Row
from fmsd.runs.papers import is_written_by
from fmsd.runs.predictions import read_predictions
from fmsd.tables import read_csv

FILES = {
    "dataset": ("results.csv", "results.md", "results.tex", "report.html"),
    "domain": ("domains.csv", "domains.md", "domains.tex", "domains.png"),
}
"""Files of a report by what its columns are."""

GROUP_FILES = ("groups.csv", "groups.md", "groups.tex")
"""Files of a report by any other column."""

FAMILIES = ("column", "table")
"""The comparisons that p-values are corrected for."""

BIBLIOGRAPHY, WRITER = "references.bib", "fmsd report"
"""The file with the papers behind the runs, and the writer that its first line names."""


def check_report_arguments(
    out: Path | None, by: str, against: str | None, resamples: int, holm: str
) -> None:
    """Checks the arguments of a report that do not depend on its runs.

    Raises:
        InputError: the arguments contradict each other, or files in `out` are of another writer.
    """
    check_choice("holm", holm, FAMILIES)
    if type(resamples) is not int or resamples < 0 or (against is not None and not resamples):
        raise InputError(f"resamples={resamples} leaves nothing to compare by", "give 1000")
    if against is not None and by != "dataset":
        raise InputError("against= compares whole datasets", "leave it out, or set by=dataset")
    if out is None:
        return
    if (out / "run.json").exists():
        raise InputError(
            f"out={out} is the folder of a run, whose results.csv would be lost",
            "give another folder",
        )
    files = [out / name for name in FILES.get(by, GROUP_FILES)]
    remedy = "give another folder as out=FOLDER"
    check_replaceable(files, files[0], _is_report, WRITER, remedy)
    if by == "dataset":
        entries = out / BIBLIOGRAPHY
        check_replaceable(
            [entries], entries, lambda file: is_written_by(file, WRITER), WRITER, remedy
        )


def check_attributes(file: Path, by: str, out: Path | None) -> Attributes:
    """Reads attributes where a report shows them.

    Raises:
        InputError: it does not show them, or they cannot be used.
    """
    if by == "domain" or (by == "dataset" and out is None):
        raise InputError(
            f"attributes={file} would not be shown",
            "set by= to one of its columns, or by=dataset and out=FOLDER for a page",
        )
    return read_attributes(file)


def check_column(by: str, rows: Sequence[Row], attributes: Attributes | None) -> None:
    """Checks what the columns of a report are, and that attributes match tested frames.

    Raises:
        InputError: there is no such column, or no line of the attributes matches.
    """
    files = [path for row in rows for path in row.prediction_files.values()]
    columns = group_columns(read_predictions(files[0]), attributes) if by not in FILES else []
    if by in {*SCHEMA} - {*DIGEST_COLUMNS} - {*columns}:
        raise InputError(
            f"Predictions have no column {by}; manifests have",
            "give the manifest of the test dataset as attributes=manifest.parquet",
        )
    check_choice("by", by, dict.fromkeys([*FILES, *columns]))
    if attributes is not None:
        attributes.check_matches([read_predictions(file) for file in files])


def check_metric(metric: str, tidy: pl.DataFrame) -> None:
    """Checks that there are results of a metric."""
    check_choice("metric", metric, tidy["metric"].unique().sort())


def _is_report(path: Path) -> bool:
    """Whether a file has the columns of a report; results of a single run have no `run`."""
    columns = set(read_csv(path, n_rows=0).columns)
    required = {"dataset", "level", "metric", "value", "run"}
    return required <= columns and not columns.isdisjoint({"seed", "group"})
