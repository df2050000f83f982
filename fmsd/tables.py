"""Tables in files, read from exactly the path that is given: polars takes `*`, `?`, `[...]` and `~` in a path for a pattern of several files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Reads a parquet file.

    Args:
        columns: the only ones to read; None for all.

    Raises:
        polars.exceptions.PolarsError: it is no parquet file, or lacks a column.
        OSError: it is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.read_parquet(file, columns=None if columns is None else list(columns))


def read_csv(path: Path, **options: Any) -> pl.DataFrame:
    """Reads a CSV file.

    Args:
        options: of `polars.read_csv`.

    Raises:
        polars.exceptions.PolarsError: it is no such table.
        OSError: it is missing or cannot be read.
    """
    with path.open("rb") as file:
        return pl.read_csv(file, **options)


def read_parquet_schema(path: Path) -> pl.Schema:
    """The columns of a parquet file and their kinds.

    Raises:
        PolarsError: it is none.
    """
    with path.open("rb") as file:
        return pl.Schema(pl.read_parquet_schema(file))
