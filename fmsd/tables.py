"""Reading tables from exactly the given path.

Polars itself expands `*`, `?`, `[...]` and `~` in a path, which are ordinary characters in names of
files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Reads a parquet file.

    Args:
        columns: names of the columns to read; None for all.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file, or lacks a column.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.read_parquet(file, columns=None if columns is None else list(columns))


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


def read_parquet_schema(path: Path) -> pl.Schema:
    """The column names and types of a parquet file.

    Raises:
        polars.exceptions.PolarsError: the file is no parquet file.
        OSError: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.Schema(pl.read_parquet_schema(file))
