"""Checks of a manifest before it is trained or tested on; each error quotes the first bad rows."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.data.frame import AUDIO, REAL, SCHEMA, SPLITS
from fmsd.data.loading.image import parse_tar_member
from fmsd.data.mirror import remote_size
from fmsd.errors import InputError
from fmsd.names import unfit_names


def check_table(table: pl.DataFrame, root: Path) -> None:
    """Checks the values of a manifest's table; no file is read.

    Raises:
        InputError: the first check that fails, with the rows that fail it.
    """
    rows = table.with_row_index("row")
    if rows.is_empty():
        raise InputError(
            f"The manifest of {root} has no frames",
            "check data.root and what was chosen of it",
        )
    _check_cells(rows)
    _check_names(rows)
    _check_relations(rows)


def check_files(table: pl.DataFrame, files: Sequence[str], root: Path) -> None:
    """Checks that every file exists, and that tars reach as far as their frames.

    Args:
        files: the place of each row's frame, see `Manifest.files`.

    Raises:
        InputError: the first check that fails, with the rows that fail it.
    """
    size = functools.cache(
        lambda tar: remote_size(tar) or (Path(tar).stat().st_size if os.path.isfile(tar) else -1)
    )
    absent: list[int] = []
    cut: list[int] = []
    for row, place in enumerate(files):
        if member := parse_tar_member(place):
            tar, offset, length = member
            if size(tar) < offset + length:
                cut.append(row)
        elif not os.path.isfile(place):
            absent.append(row)
    links = [row for row in absent if os.path.islink(files[row])]  # noqa: PTH114  paths of text
    rows = table.with_row_index("row")
    _refuse(
        rows[links],
        "path",
        "are links to files that are not there",
        "complete the copy, or remove the links",
    )
    _refuse(
        rows[absent],
        "path",
        f"do not exist under {root}",
        "complete the copy or correct the root",
    )
    _refuse(
        rows[cut],
        "path",
        f"lie in tars that are missing or cut off under {root}",
        "complete the copy",
    )


def _check_cells(rows: pl.DataFrame) -> None:
    """Checks every cell by itself."""
    empty = rows.with_columns(cell=pl.lit("empty")).filter(
        pl.any_horizontal(pl.col(name).is_null() for name in SCHEMA.names())
    )
    _refuse(empty, "cell", "have no value", "fill them in")
    _refuse(
        rows.filter(~pl.col("label").is_in([0, 1])),
        "label",
        "are neither 0 (real) nor 1 (fake)",
        "correct the labels",
    )
    _refuse(
        rows.filter(pl.col("index") < 0),
        "index",
        "are below 0",
        "number the frames of each video from 0",
    )
    _refuse(
        rows.filter(~pl.col("split").is_in(SPLITS)),
        "split",
        f"are none of {', '.join(SPLITS)}",
        "rename the splits",
    )
    _refuse(
        rows.filter(~pl.col("audio").is_in(AUDIO)),
        "audio",
        "are neither real nor fake nor empty",
        "correct them",
    )


def _check_names(rows: pl.DataFrame) -> None:
    """Checks that the names can become names of files."""
    for column in ("dataset", "domain", "compression", "video", "pair"):
        names = rows[column].unique().to_list()
        wrong = unfit_names(
            (name for name in names if name or column not in ("compression", "pair")),
            nested=column in ("video", "pair"),
        )
        if wrong:
            bad = rows.filter(pl.col(column).is_in(list(wrong)))
            what, remedy = wrong[bad[column][0]]
            _refuse(bad, column, f"cannot become names of files (the first {what})", remedy)


def _check_relations(rows: pl.DataFrame) -> None:
    """Checks the rows against each other."""
    mismatch = (pl.col("domain") == REAL) != (pl.col("label") == 0)
    _refuse(
        rows.filter(mismatch),
        "domain",
        f"do not fit their label (exactly the real frames have the domain {REAL!r})",
        "correct label or domain",
    )
    _refuse(
        rows.filter((pl.col("label") == 0) & (pl.col("pair") != "")),
        "pair",
        "are those of real frames",
        "leave them empty: only a fake has a real video that it was made from",
    )
    several = pl.any_horizontal(
        pl.col("label", "domain", "dataset", "compression").n_unique().over("video") > 1
    )
    _refuse(
        rows.filter(several),
        "video",
        "carry more than one label, domain, dataset or compression",
        "give each video an id of its own (dataset/domain/compression/video)",
    )
    _refuse(
        rows.filter(pl.col("pair").n_unique().over("video") > 1),
        "pair",
        "differ within a video",
        "give all frames of a video the real video that it was made from",
    )
    _refuse(
        rows.filter(pl.col("split").n_unique().over("video") > 1),
        "video",
        "lie in more than one split",
        "leave each video in one split",
    )
    _refuse(
        rows.filter(pl.col("path").is_duplicated()),
        "path",
        "are listed more than once",
        "keep one row per file",
    )
    _refuse(
        rows.filter(pl.col("index").is_duplicated().over("video")),
        "index",
        "come twice in a video",
        "number the frames of each video",
    )


def _refuse(rows: pl.DataFrame, column: str, what: str, remedy: str, quoted: int = 3) -> None:
    """Raises for the given rows, quoting the first few; does nothing if there are none."""
    if rows.is_empty():
        return
    names = dict.fromkeys(("path", column))
    quotes = [
        f"row {row['row']} ({', '.join(str(row[name]) for name in names)})"
        for row in rows.head(quoted).to_dicts()
    ]
    more = f" and {rows.height - quoted} more" if rows.height > quoted else ""
    raise InputError(
        f"In the manifest, the {column} values of {', '.join(quotes)}{more} {what}", remedy
    )
