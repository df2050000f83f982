"""Files of scores that other programs wrote: CSV, JSON, JSON lines or parquet, as one table.

A file has a row per score: the key of a frame or video, the score, and where it has them the name
of the dataset and the label. Columns are found by their whole names, never by a part of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fmsd.data.score_columns import COLUMN_WORDS, check_roles, choose_columns
from fmsd.data.score_values import parse_labels, parse_scores
from fmsd.data.sources.text import (
    KIND_NAMES,
    read_csv_header,
    read_csv_table,
    read_json,
    read_json_lines,
)
from fmsd.errors import InputError, reason
from fmsd.names import SURROGATE
from fmsd.quoting import printable
from fmsd.tables import read_parquet, read_parquet_schema


@dataclass(frozen=True)
class ScoreFile:
    """The rows of a file of scores.

    Args:
        table: a row per score: `place` (Int64, see `unit`), `key` (String), `score` (Float64, null
            without one), `outcome` (String, `scored` or why there is no score), and where the file
            has them `dataset` (String) and `label` (Int8, 1 for fake, null where it is empty).
        unit: what `place` counts from 1: `line`, `row` or `entry`.
        columns: the names of the columns in the file by what they hold; empty for an object that
            maps keys to scores.
    """

    table: pl.DataFrame
    unit: str
    columns: Mapping[str, str]


class _Rows(NamedTuple):
    """Rows as texts: the columns of `ScoreFile.table` but `outcome`, each a String but `place`."""

    table: pl.DataFrame
    unit: str
    columns: Mapping[str, str]


def read_scores(path: Path, columns: Mapping[str, Any]) -> ScoreFile:
    """Reads a file of scores; its suffix is that of its format.

    Args:
        columns: the names of columns by what they hold, see `COLUMN_WORDS`; None for a column that
            is there and is not used. Others are found by their names.

    Raises:
        InputError: the file cannot be read or holds no scores, a column is missing or not certain,
            or a cell is no key, no score or no label; the message names the file and the place.
    """
    columns = check_roles(columns)
    if not path.is_file():
        raise InputError(f"There is no file of scores {path}", "correct scores=FILE")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"The suffix of {path} is none of {', '.join(READERS)}",
            "give the file the suffix of its format",
        )
    rows = reader(path, columns)
    if rows.table.is_empty():
        raise InputError(f"{path} holds no scores", "give a file with a row per score")
    table = parse_scores(rows.table, rows.unit, path)
    if "label" in table.columns:
        table = parse_labels(table, rows.unit, path, rows.columns)
    return ScoreFile(table, rows.unit, rows.columns)


def _csv(path: Path, given: Mapping[str, str | None]) -> _Rows:
    """The rows of a table whose cells are separated by commas, semicolons or tabs."""
    words = {*(word for words in COLUMN_WORDS.values() for word in words)}
    words |= {name for name in given.values() if name is not None}
    columns = choose_columns(read_csv_header(path, words), given, path)
    header, rows = read_csv_table(path, [*columns.values()])
    pick = [(header.index(name), list[str]()) for name in columns.values()]
    lines = list[int]()
    for line, cells in rows:  # kept by columns: a million rows would occupy the garbage collector
        lines.append(line)
        for place, texts in pick:
            texts.append(cells[place])
    texts = {role: texts for role, (_, texts) in zip(columns, pick, strict=True)}
    return _Rows(_as_texts(lines, texts, path, "line"), "line", columns)


def _parquet(path: Path, given: Mapping[str, str | None]) -> _Rows:
    try:
        schema = read_parquet_schema(path)
        columns = choose_columns([*schema], given, path)
        table = read_parquet(path, [*columns.values()])
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"The table {path} cannot be read ({reason(error)})", "write it again"
        ) from error
    table = table.select(**columns)
    for role, kind in table.schema.items():
        text = kind in (pl.String, pl.Categorical, pl.Enum) or kind.is_integer() or kind == pl.Null
        if not (text or (kind.is_float() and role != "key")):
            raise InputError(
                f"The column {printable(columns[role])} of {path} holds {kind}",
                f"write the {role} as text{'' if role == 'key' else ' or as a number'}",
            )
    numbers = [role for role, kind in table.schema.items() if kind.is_float()]
    table = table.with_columns(pl.col(numbers).cast(pl.Float64)).cast(pl.String)
    return _Rows(table.fill_null("").with_row_index("place", 1), "row", columns)


def _json(path: Path, given: Mapping[str, str | None]) -> _Rows:
    """The rows of a list of objects, of columns, or of an object that maps keys to scores."""
    content = read_json(path, object)
    if isinstance(content, list):
        return _objects(enumerate(content, 1), given, path, "entry")
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is {KIND_NAMES[type(content)]}",
            "give a list of objects, an object of columns, or one that maps keys to scores",
        )
    if content and all(isinstance(value, list) for value in content.values()):
        columns = choose_columns([*content], given, path)
        lengths = {name: len(content[name]) for name in columns.values()}
        if len({*lengths.values()}) > 1:
            found = ", ".join(f"{printable(name)} {length}" for name, length in lengths.items())
            raise InputError(
                f"The columns of {path} have other lengths ({found})", "write the file again"
            )
        places = range(1, len(content[columns["key"]]) + 1)
        cells = {role: content[name] for role, name in columns.items()}
        return _Rows(_as_texts(places, cells, path, "entry"), "entry", columns)
    if given:
        raise InputError(
            f"columns would have no effect: {path} maps keys to scores and has no columns",
            "leave it out",
        )
    places, cells = range(1, len(content) + 1), {"key": [*content], "score": [*content.values()]}
    return _Rows(_as_texts(places, cells, path, "entry"), "entry", {})


def _json_lines(path: Path, given: Mapping[str, str | None]) -> _Rows:
    return _objects(read_json_lines(path), given, path, "line")


def _objects(
    objects: Iterable[tuple[int, Any]], given: Mapping[str, str | None], path: Path, unit: str
) -> _Rows:
    """The rows of objects, each with its place."""
    rows = list(objects)
    header = dict[str, None]()
    for place, value in rows:
        if not isinstance(value, dict):
            raise InputError(
                f"{unit.capitalize()} {place} of {path} is {KIND_NAMES[type(value)]}, no object",
                "correct it",
            )
        header.update(dict.fromkeys(value))
    columns = choose_columns([*header], given, path) if rows else {}
    places = [place for place, _ in rows]
    cells = {role: [row.get(name) for _, row in rows] for role, name in columns.items()}
    return _Rows(_as_texts(places, cells, path, unit), unit, columns)


def _as_texts(
    places: Sequence[int], cells: Mapping[str, Sequence[Any]], path: Path, unit: str
) -> pl.DataFrame:
    """The table of places and texts, from the JSON values of columns by what they hold.

    Raises:
        InputError: a value is no text and no number, or cannot be written in UTF-8.
    """
    columns = {"place": pl.Series(places, dtype=pl.Int64)}
    for role, values in cells.items():
        allowed = {str, int, bool, type(None), *(() if role == "key" else (float,))}
        if not {*map(type, values)} <= allowed:
            place, value = next(
                (place, value)
                for place, value in zip(places, values, strict=True)
                if type(value) not in allowed
            )
            raise InputError(
                f"The {role} in {unit} {place} of {path} is {KIND_NAMES[type(value)]}",
                "write it as text" if role == "key" else "write it as a number",
            )
        texts = [each if type(each) is str else _text_of(each) for each in values]
        columns[role] = _text_column(texts, places, path, unit)
    return pl.DataFrame(columns)


def _text_of(value: Any) -> str:
    return "" if value is None else str(value)


def _text_column(texts: Sequence[str], places: Sequence[int], path: Path, unit: str) -> pl.Series:
    try:
        return pl.Series(texts, dtype=pl.String)
    except UnicodeEncodeError as error:
        pairs = zip(places, texts, strict=True)
        place = next(place for place, text in pairs if SURROGATE.search(text))
        raise InputError(
            f"{unit.capitalize()} {place} of {path} holds half a character", "correct it"
        ) from error


READERS: Mapping[str, Callable[[Path, Mapping[str, str | None]], _Rows]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".pq": _parquet,
}
"""The readers by the suffix of a file, in lower case."""
