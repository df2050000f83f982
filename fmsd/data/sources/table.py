"""A CSV or parquet file with a manifest's columns, for datasets that no folder layout describes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.frame import AUDIO, Entry, Frame, Video
from fmsd.data.sources.labels import LABEL_DIGITS, forgery_domain
from fmsd.data.sources.text import canonical_columns, read_csv_table
from fmsd.data.sources.tree import is_video, refuse_unreadable
from fmsd.data.spelling import ListedPaths
from fmsd.errors import InputError, reason
from fmsd.tables import read_parquet

REQUIRED_COLUMNS = ("path", "label", "dataset", "domain", "video", "index", "split")
OPTIONAL_COLUMNS = ("compression", "pair", "audio")


@refuse_unreadable
def scan(root: Path, file: str) -> Iterator[Entry]:
    """The frames or video files that a table lists.

    Args:
        root: the folder that the table's paths are relative to.
        file: the table, relative to `root` or absolute: columns path, label (1 = fake), dataset,
            domain (`real` for real frames), video (an id unique over all datasets), index, split
            (train, val or test), and optionally compression, pair (of a fake, the `video` of the
            real video that it was made from) and audio (real or fake). Others are ignored. The
            cells of a CSV file may be separated by commas, semicolons or tabs, with blanks around
            them.

    Raises:
        InputError: no such file, a missing column, or an empty cell.
    """
    path = root / file
    if not path.is_file():
        raise InputError(
            f"There is no table {path}", "give it as data.source.file=FILE under data.root=PATH"
        )
    paths = ListedPaths(path)
    for number, row in _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path):
        if empty := [name for name in REQUIRED_COLUMNS if row[name] in (None, "")]:
            raise InputError(
                f"Line {number} of the table {path} has empty cells in the columns "
                f"{', '.join(empty)}",
                "fill them in",
            )
        try:
            yield _entry(paths.locate(root, row["path"]), row, path)
        except InputError as error:
            raise InputError(f"{error.message} (line {number} of {path})", error.remedy) from error
    yield from paths.problems()


def _entry(place: Path, row: dict[str, Any], path: Path) -> Entry:
    """The frame or video of a row.

    Raises:
        InputError: a label other than 0 and 1, an unknown audio, a forgery named `real`, or a name
            that no file can have.
    """
    if isinstance(row["label"], str):
        row["label"] = LABEL_DIGITS.get(row["label"].strip(), row["label"])
    if type(row["label"]) not in (int, float) or row["label"] not in (0, 1):
        raise InputError(
            f"The table {path} has values of the wrong kind (the label of {row['path']} is "
            f"{row['label']!r})",
            "labels are 0 or 1, as numbers: 0 for real, 1 for fake",
        )
    if not is_video(place) and type(row["index"]) is not int:
        what = (
            f"The table {path} has values of the wrong kind (the index of {row['path']} is "
            f"{row['index']!r})"
        )
        raise InputError(what, "indices are whole numbers")
    described: dict[str, Any] = {
        name: row[name] for name in ("dataset", "domain", "video", "split")
    }
    described["label"] = int(row["label"])
    described |= {name: row.get(name) or "" for name in OPTIONAL_COLUMNS}
    if described["audio"] not in AUDIO:
        raise InputError(
            f"The table {path} gives {row['path']} the audio {described['audio']!r}",
            "write real, fake or nothing",
        )
    if row["label"] == 1:
        forgery_domain(str(row["domain"]), f"The table {path}")
    return (
        Video(file=place, images=None, **described)
        if is_video(place)
        else Frame(path=place, index=row["index"], **described)
    )


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, cells by column) of a CSV file; whole labels and indices are numbers."""
    header, rows = read_csv_table(path, REQUIRED_COLUMNS, OPTIONAL_COLUMNS)
    for number, cells in rows:
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
        yield number, row | {name: _whole(row[name]) for name in ("label", "index")}


def _whole(cell: str) -> int | str:
    """A cell as a whole number, also where it is written as 1.0; otherwise unchanged."""
    return int(cell.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]+(\.0*)?", cell) else cell


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, cells by column) of a parquet file."""
    try:
        table = read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"The table {path} cannot be read ({reason(error)})", "write it again"
        ) from error
    table.columns = canonical_columns(table.columns, (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS), path)
    if missing := [name for name in REQUIRED_COLUMNS if name not in table.columns]:
        raise InputError(
            f"The table {path} lacks the columns {', '.join(missing)}",
            f"it needs {', '.join(REQUIRED_COLUMNS)}",
        )
    text = [
        name
        for name in ("path", "dataset", "domain", "video", "split", *OPTIONAL_COLUMNS)
        if name in table.columns
    ]
    yield from enumerate(table.cast(dict.fromkeys(text, pl.String)).iter_rows(named=True), 1)
