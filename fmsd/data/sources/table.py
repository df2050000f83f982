"""A CSV or parquet file with a manifest's columns: the way in for a dataset that no folder layout describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data import labels
from fmsd.data.clip import is_video, readable
from fmsd.errors import InputError, reason
from fmsd.tables import read_csv, read_parquet
from fmsd.types import Entry, Frame, Video

COLUMNS = ("path", "label", "dataset", "domain", "video", "index", "split")


@readable
def scan(root: Path, file: str) -> Iterator[Entry]:
    """The frames that a table lists, or the video files.

    Args:
        root: what the table's paths are relative to.
        file: the table, relative to `root` or absolute: columns path, label (1 = fake), dataset, domain (`real` for real frames), video
            (an id unique over all datasets), index, split (train, val or test), and optionally compression. Others are ignored.

    Raises:
        InputError: no such file, a missing column, or a cell of the wrong kind.
    """
    path = root / file
    if not path.is_file():
        raise InputError(f"There is no table {path}", "give it as data.source.file=FILE under data.root=PATH")
    try:
        text = pl.Schema(dict.fromkeys(("path", "dataset", "domain", "video", "split", "compression"), pl.String))
        table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path, schema_overrides=text)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"The table {path} cannot be read ({reason(error)})", "correct that cell") from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise InputError(f"The table {path} lacks the columns {', '.join(missing)}", f"it needs {', '.join(COLUMNS)}")
    if table.select(COLUMNS).null_count().sum_horizontal().item():
        raise InputError(f"The table {path} has empty cells in the columns {', '.join(COLUMNS)}", "fill them in")
    _check_labels(path, table)
    for number, line in enumerate(table.iter_rows(named=True), 1):
        try:
            entry = _entry(root, line)
        except InputError as error:
            raise InputError(f"{error.message} (row {number} of {path}, not counting its head)", error.remedy) from error
        yield entry


def _entry(root: Path, line: dict[str, Any]) -> Entry:
    """The frame or video of a row."""
    place = root / line["path"]
    line["label"] = int(line["label"])
    described: dict[str, Any] = {name: line[name] for name in ("label", "dataset", "domain", "video", "split")}
    described["compression"] = line.get("compression") or ""
    if is_video(place):
        return Video(file=place, images=None, **described)
    return Frame(path=place, index=line["index"], **described)


def _check_labels(path: Path, table: pl.DataFrame) -> None:
    """Refuses labels other than the numbers 0 and 1, and forgeries that are called real.

    Raises:
        InputError: the first of these.
    """
    label, kind = pl.col("label"), table.schema["label"]
    right = (label == 0) | (label == 1) if kind.is_numeric() else label.str.strip_chars().is_in(["0", "1"]) if kind == pl.String else pl.lit(False)
    if len(wrong := table.filter(~right)):
        row = wrong.row(0, named=True)
        raise InputError(
            f"The table {path} has values of the wrong kind (the label of {row['path']} is {row['label']!r})",
            "labels are 0 or 1, as numbers: 0 for real, 1 for fake",
        )
    for domain in table.filter(label.cast(pl.Float64) == 1)["domain"].unique().sort():
        labels.forgery(str(domain), f"The table {path}")
