"""Attributes of test videos from a table of the user: gender, skin type, language, ..."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from fmsd.errors import InputError, reason
from fmsd.metrics.groups import UNKNOWN
from fmsd.quoting import printable
from fmsd.tables import read_csv, read_parquet

log = logging.getLogger(__name__)

KEYS = (("path",), ("dataset", "video"), ("video",))
"""The columns by which lines are matched with frames: the first of these that a table has."""

RESERVED = frozenset(
    {"path", "dataset", "video", "label", "domain", "index", "split", "compression"}
    | {"logit", "content", "outcome", "score"}
)
"""Columns of predictions, which count; a manifest as a table of attributes has some, too."""

LONGEST = 100
"""Characters of the longest name or value."""

MOST_NAMED = 10
"""Columns that a message names, at most."""

EXAMPLE = "give a table with the columns path, or dataset and video, and one for each attribute"


@dataclass(frozen=True)
class Attributes:
    """Attributes of frames or videos.

    Args:
        file: the table.
        keys: the columns that match a line with frames.
        names: the attributes.
        table: keys and attributes as text; empty values are `UNKNOWN`.
    """

    file: Path
    keys: tuple[str, ...]
    names: list[str]
    table: pl.DataFrame

    def join(self, frames: pl.DataFrame) -> pl.DataFrame:
        """Adds the attributes to frames; those without a line get `UNKNOWN`."""
        joined = frames.join(self.table, on=self.keys, how="left", maintain_order="left")
        return joined.with_columns(pl.col(self.names).fill_null(UNKNOWN))

    def check_matches(self, tests: Sequence[pl.DataFrame]) -> None:
        """Warns of lines that match nothing.

        Args:
            tests: the keys of all tested frames.

        Raises:
            InputError: no line matches a frame.
        """
        known = pl.concat([frames.select(self.keys) for frames in tests]).unique()
        unmatched = self.table.join(known, on=self.keys, how="anti").height
        if unmatched == self.table.height:
            example = ", ".join(f"{key}={known[key][0]!r}" for key in self.keys)
            raise InputError(
                f"No line of attributes={self.file} matches a test frame by "
                f"{' and '.join(self.keys)}",
                f"write them as the predictions do, for example {example}",
            )
        if unmatched:
            log.warning(
                "%d of the %d lines of attributes=%s match no test frame.",
                unmatched,
                self.table.height,
                self.file,
            )


def read_attributes(file: Path) -> Attributes:
    """Reads a table of attributes: CSV, tab-separated values (`.tsv`) or parquet.

    Raises:
        InputError: it cannot be read, lacks keys or attributes, has a line twice, or a name or
            value that is too long or cannot be printed.
    """
    table = _read(file)
    keys = next((keys for keys in KEYS if set(keys) <= set(table.columns)), None)
    if keys is None:
        found = ", ".join(printable(name)[:LONGEST] for name in table.columns[:MOST_NAMED])
        raise InputError(
            f"attributes={file} has no column path or video, by which lines are matched with test "
            f"frames; its columns are {found}",
            "rename the one that holds them to path or video in its header",
        )
    names = [name for name in table.columns if name not in RESERVED]
    if not names:
        raise InputError(f"attributes={file} has columns of predictions alone", EXAMPLE)
    if taken := [name for name in table.columns if name in RESERVED - {"path", "dataset", "video"}]:
        log.warning(
            "attributes=%s has %s, which predictions have themselves: theirs count.",
            file,
            ", ".join(taken),
        )
    nested = [name for name in (*keys, *names) if table[name].dtype.is_nested()]
    if nested:
        raise InputError(f"attributes={file} has lists in the column {nested[0]}", "give text")
    table = table.select(pl.col(*keys, *names).cast(pl.String, strict=False))
    values = {value for name in names for value in table[name].drop_nulls().unique()}
    for text in (*names, *sorted(values)):
        if not text.isprintable() or len(text) > LONGEST:
            raise InputError(
                f"attributes={file} has {text[:LONGEST]!r}, which cannot be printed or is longer "
                f"than {LONGEST} characters",
                "shorten it to words",
            )
    if table.select(keys).null_count().sum_horizontal().item():
        raise InputError(f"attributes={file} has a line without {' and '.join(keys)}", EXAMPLE)
    twice = table.filter(table.select(keys).is_duplicated())
    if twice.height:
        line = ", ".join(f"{key} {twice[key][0]!r}" for key in keys)
        raise InputError(f"attributes={file} has two lines of {line}", "keep one of them")
    empty = pl.col(names).str.strip_chars()
    table = table.with_columns(pl.when(empty != "").then(empty).otherwise(pl.lit(UNKNOWN)))
    return Attributes(file, keys, names, table)


def _read(file: Path) -> pl.DataFrame:
    """The table as it is; values of a CSV file are text.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return read_parquet(file)
        separator = "\t" if file.suffix.lower() == ".tsv" else ","
        return read_csv(file, separator=separator, infer_schema=False)
    except OSError as error:
        raise InputError(
            f"attributes={file} cannot be read ({error.strerror or error})", "give a file"
        ) from error
    except (PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"attributes={file} is no table ({reason(error)})", EXAMPLE) from error
