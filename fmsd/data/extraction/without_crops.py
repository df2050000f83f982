"""The videos of an extraction of which it made no crop, from its records and lists of failures."""

import logging
from pathlib import Path

import polars as pl

from fmsd.data.absent_videos import ABSENT_SCHEMA
from fmsd.data.extraction.records import read_records
from fmsd.errors import InputError, reason
from fmsd.outcomes import NO_FACE, UNREADABLE
from fmsd.tables import read_csv

log = logging.getLogger(__name__)

UNDECODED = {"corrupt", "damaged"}
"""Statuses of frames whose pixels could not be used."""


def list_absent(out: Path) -> pl.DataFrame:
    """The videos without a crop in a folder of crops.

    A video whose frames are all damaged, or that could not be read, is unreadable; in any other,
    no face was found.

    Returns:
        The columns of `ABSENT_SCHEMA`.

    Raises:
        InputError: a record or a list of failures is damaged.
    """
    done, rows = set[str](), []
    for _, record in read_records(out):
        done.add(record["video"])
        statuses = {frame["status"] for frame in record["frames"]}
        if "face" not in statuses:
            outcome = UNREADABLE if statuses <= UNDECODED else NO_FACE
            rows.append(record | {"outcome": outcome})
    for path in sorted(out.glob("failures-*.csv")):
        failed = read_failures(path)
        rows += [row for row in failed.iter_rows(named=True) if row["video"] not in done]
        done |= set(failed["video"])
    table = pl.DataFrame(
        [tuple(row[name] for name in ABSENT_SCHEMA) for row in rows], ABSENT_SCHEMA, orient="row"
    )
    return table.sort("video")


def read_failures(path: Path) -> pl.DataFrame:
    """The videos in a list of failures as unreadable ones; none of a list of fmsd 0.1.0.

    Raises:
        InputError: the list is damaged.
    """
    about = [name for name in ABSENT_SCHEMA if name != "outcome"]
    try:
        table = read_csv(path, infer_schema=False)
        if not set(about) <= set(table.columns):
            log.warning(
                "%s does not say to which dataset and split its videos belong, so tests do not "
                "count them; run fmsd extract again.",
                path,
            )
            return pl.DataFrame(schema=ABSENT_SCHEMA)
        return (
            table.select(about)
            .with_columns(pl.col("compression").fill_null(""), outcome=pl.lit(UNREADABLE))
            .cast(ABSENT_SCHEMA)
        )
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path} is damaged ({reason(error)})", "run fmsd extract again, which writes it"
        ) from error
