"""Reading tables from exactly the given path, checked to have the columns that they should.

Polars itself expands `*`, `?`, `[...]` and `~` in a path, which are ordinary characters in names of
files.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import ComputeError, PanicException, PolarsError

from fmsd.errors import InputError, reason
from fmsd.magic_numbers import recognise


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Reads a parquet file.

    Args:
        columns: names of the columns to read; None for all.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file, or lacks a column.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        try:
            return pl.read_parquet(file, columns=None if columns is None else list(columns))
        except PanicException as error:  # of polars, about damaged bytes; it is no Exception
            raise ComputeError(reason(RuntimeError(str(error)))) from error


def read_table(
    path: Path,
    schema: pl.Schema,
    remedy: str,
    complete: bool = True,
    optional: pl.Schema | None = None,
) -> pl.DataFrame:
    """Reads a parquet file that must have certain columns.

    Args:
        schema: the columns and their types. Whole numbers of another size are converted; floats
            keep their precision.
        remedy: what to do about a file that does not have them.
        complete: refuse a column that lacks a value.
        optional: further columns with their types, for those of them that the file has.

    Returns:
        The columns of the schema first, the optional ones, and further ones behind them.

    Raises:
        InputError: it does not; the message names the file, the column and what is wrong with it.
    """
    try:
        table = read_parquet(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})", remedy) from error
    except PolarsError as error:
        fault = recognise(path)
        if fault is not None:
            raise InputError(
                f"{path} cannot be read: it {fault.what}", fault.remedy_or(remedy)
            ) from error
        raise InputError(f"{path} is no parquet file ({reason(error)})", remedy) from error
    if missing := [name for name in schema if name not in table.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}", remedy)
    further = {name: kind for name, kind in (optional or {}).items() if name in table.columns}
    schema = pl.Schema({**schema, **further})
    for name, kind in schema.items():
        found = table.schema[name]
        if not (
            found == kind
            or (found.is_integer() and kind.is_integer())
            or (found.is_float() and kind.is_float())
        ):
            raise InputError(
                f"{path} is damaged: its column {name!r} holds {found} instead of {kind}", remedy
            )
        if complete and table[name].null_count():
            raise InputError(f"{path} is damaged: its column {name!r} lacks values", remedy)
    whole = {name: kind for name, kind in schema.items() if kind.is_integer()}
    try:
        return table.cast(pl.Schema(whole)).select(*schema, pl.exclude(*schema))
    except PolarsError as error:
        raise InputError(f"{path} is damaged: {reason(error)}", remedy) from error


def read_parquet_rows(path: Path, column: str, start: int, rows: int) -> pl.Series:
    """Some rows of a column of a parquet file, without reading the others.

    Args:
        start: the first row.
        rows: their number, at most.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file, or lacks the column.
        OSError: the file is missing or cannot be read.
    """
    return pl.scan_parquet(path, glob=False).select(column).slice(start, rows).collect()[column]


def read_parquet_metadata(path: Path) -> dict[str, str]:
    """The texts that a parquet file was written with, by key.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.read_parquet_metadata(file)


def read_csv(path: Path, **options: Any) -> pl.DataFrame:
    """Reads a CSV file.

    Args:
        options: keyword arguments of `polars.read_csv`.

    Raises:
        polars.exceptions.PolarsError: the file is no such table.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.read_csv(file, **options)


FORMULA = re.compile(r"[=+\-@\t\r]")
"""How a text begins that spreadsheets compute instead of showing it."""


def as_plain_text(text: str) -> str:
    """A text for a cell of a CSV file: with an apostrophe in front if it would be a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def read_parquet_schema(path: Path) -> pl.Schema:
    """The column names and types of a parquet file.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.Schema(pl.read_parquet_schema(file))
