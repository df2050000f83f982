"""The text files of datasets: lists, JSON and CSV, in the encodings that editors write.

Values are checked where they are read: an error names the file and the entry.
"""

import codecs
import csv
import functools
import io
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fmsd.data.sources.tree import raise_unreadable
from fmsd.errors import InputError, reason
from fmsd.quoting import printable

log = logging.getLogger(__name__)

T = TypeVar("T")

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark; Windows' Notepad writes all three."""

KIND_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
"""Names of JSON's types, for messages."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Cell separators: spreadsheets write semicolons where the comma is the decimal mark."""

CORRECT_ENTRY = "correct that entry, or remove it"


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        InputError: the file cannot be read, or is in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise_unreadable(error)
    encoding = next(
        (name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8"
    )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"Line {line} of {path} is not {encoding.removesuffix('-sig').upper()} text",
            "save the file in UTF-8",
        ) from error


def read_json(path: Path, kind: type[T] = dict) -> T:
    """Reads a JSON file.

    Args:
        kind: type of its top-level value, `dict` or `list`.

    Raises:
        InputError: the file cannot be read, is not JSON, has a value of another type, or gives a
            name two values.
    """
    return require_kind(_parse_json(read_text(path), _decoder(path), path), kind, path)


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line that is not empty; each is JSON of its own.

    Raises:
        InputError: the file cannot be read, or see `read_json`.
    """
    decoder = _decoder(path)
    # not str.splitlines, which also ends lines at characters that JSON has in texts
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, _parse_json(line, decoder, path, f"Line {number} of {path} is no JSON")


def _decoder(path: Path) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=functools.partial(_object, path))


def _parse_json(text: str, decoder: json.JSONDecoder, path: Path, fault: str | None = None) -> Any:
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError) as error:  # the former also for a number of 5,000 digits
        remedy = (
            "fetch the JSON file instead"
            if text.lstrip().startswith("<")
            else "fetch it again if it is cut off, else correct it there"
        )
        raise InputError(
            f"{fault or f'{path} is not a JSON file'} ({reason(error)})", remedy
        ) from error


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file; the parser itself would keep the last of several values."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    members = {}
    for name, value in pairs:
        if members.setdefault(name, value) != value:
            raise InputError(
                f"{path} gives {printable(name)} twice, with different values",
                "remove the wrong one",
            )
    return members


def require_kind(value: Any, kind: type[T], path: Path, *entry: str) -> T:
    """The value at an entry of a JSON file, checked to have a type.

    Args:
        kind: `dict`, `list`, `str`, ...
        entry: the names on the path to the value; none for the whole file.

    Raises:
        InputError: the value has another type.
    """
    if isinstance(value, kind):
        return value
    where, remedy = (
        (f"{' / '.join(entry)} in {path}", CORRECT_ENTRY)
        if entry
        else (str(path), f"put the dataset's own {path.name} there")
    )
    raise InputError(f"{where} is {KIND_NAMES[type(value)]}, not {KIND_NAMES[kind]}", remedy)


def require_member(holder: Any, name: str, kind: type[T], path: Path, *entry: str) -> T:
    """The member of the object at an entry of a JSON file, checked to have a type.

    Raises:
        InputError: the entry is no object, lacks the member, or the member has another type.
    """
    if name not in require_kind(holder, dict, path, *entry):
        raise InputError(f"{' / '.join(entry)} in {path} has no {name!r}", CORRECT_ENTRY)
    return require_kind(holder[name], kind, path, *entry, name)


def require_choice(value: Any, choices: Mapping[str, T], path: Path, *entry: str) -> T:
    """The choice that a word or number at an entry of a file stands for.

    Raises:
        InputError: the value is none of the choices.
    """
    if isinstance(value, str | int) and str(value) in choices:
        return choices[str(value)]
    raise InputError(
        f"{' / '.join(entry)} in {path} is {value!r}, none of {', '.join(choices)}", CORRECT_ENTRY
    )


class CsvTable(NamedTuple):
    """The header and rows of a CSV file.

    Args:
        header: names of the columns; requested ones in the spelling of the request.
        rows: (line number, cells) of each row, one cell for each column.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]


def read_csv_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> CsvTable:
    """Reads a CSV file; detects the separator by the columns, and strips blanks around cells.

    Separators other than commas and columns in another case are logged.

    Args:
        columns: required columns; case matters only where it distinguishes two columns.
        optional: other columns that are used where present.

    Raises:
        InputError: the file cannot be read, lacks a column or has it twice, or a row has more cells
            than the header.
    """
    text = read_text(path)
    header, separator = _header(text, columns, path)
    names = canonical_columns(header, (*columns, *optional), path)
    renamed = [
        f"{one} as {other}" for one, other in zip(header, names, strict=True) if one != other
    ]
    notes = [] if separator == "," else [f"cells are separated by {SEPARATORS[separator]}"]
    notes += [f"the columns {', '.join(renamed)}"] if renamed else []
    if notes:
        log.info("%s is read as follows: %s.", path, "; ".join(notes))
    return CsvTable(names, _rows(text, separator, len(header), path))


def read_csv_header(path: Path, words: Collection[str]) -> list[str]:
    """The header of a CSV file, empty where the file is; its separator is that of most words.

    Args:
        words: names that columns may have, in any case.

    Raises:
        InputError: the file cannot be read.
    """
    return _likeliest_header(read_text(path), words, path)[0]


def _likeliest_header(text: str, words: Collection[str], path: Path) -> tuple[list[str], str]:
    """The first line's cells, and the separator by which most of the words are found."""
    headers = {separator: _first_line(text, separator, path) for separator in SEPARATORS}
    folded = {
        separator: [name.casefold() for name in header] for separator, header in headers.items()
    }
    separator = max(
        SEPARATORS, key=lambda one: sum(name.casefold() in folded[one] for name in words)
    )
    return headers[separator], separator


def _header(text: str, columns: Sequence[str], path: Path) -> tuple[list[str], str]:
    """The first line's cells, and the separator by which most of the columns are found."""
    header, separator = _likeliest_header(text, columns, path)
    folded = [name.casefold() for name in header]
    if lacking := [name for name in columns if name.casefold() not in folded]:
        raise InputError(
            f"The table {path} lacks the columns {_join_names(lacking)}",
            f"it needs {_join_names(columns)}",
        )
    return header, separator


def _join_names(columns: Sequence[str]) -> str:
    return ", ".join(name or "one without a name" for name in columns)


def _first_line(text: str, separator: str, path: Path) -> list[str]:
    """The cells of the first line; none where it cannot be read with this separator."""
    try:
        return next((cells for _, cells in _cells(text, separator, path)), [])
    except InputError:
        return []


def canonical_columns(header: Sequence[str], columns: Sequence[str], path: Path) -> list[str]:
    """The names of a header, with requested columns in the spelling of the request.

    Args:
        header: names as the file has them.
        columns: the requested names.

    Raises:
        InputError: a requested column is there twice.
    """
    requested = {name.casefold(): name for name in columns}
    names = [
        name
        if name in columns or requested.get(name.casefold()) in header
        else requested.get(name.casefold(), name)
        for name in header
    ]
    if twice := [name for name in columns if names.count(name) > 1]:
        raise InputError(
            f"The table {path} has the column {twice[0]} more than once", "keep the right one"
        )
    return names


def _rows(text: str, separator: str, width: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of the rows below the header; missing cells at the end are empty."""
    lines = _cells(text, separator, path)
    next(lines)
    for line, cells in lines:
        if len(cells) == width:
            yield line, cells
            continue
        if any(cells[width:]):
            raise InputError(
                f"Line {line} of {path} has {len(cells)} cells, but the header {width}",
                "correct that line",
            )
        yield line, [*cells, *[""] * width][:width]


def _cells(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped cells) of each line that is not empty."""
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        for cells in lines:
            if any(stripped := [cell.strip() for cell in cells]):
                yield lines.line_num, stripped
    except csv.Error as error:
        raise InputError(
            f"Line {lines.line_num} of {path} cannot be read ({error})", "correct that line"
        ) from error
