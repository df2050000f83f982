"""Videos of a dataset of which there is no frame: no face was found, or they could not be read.

`fmsd extract` lists them beside the manifest of its crops, and a test counts them as expected
videos without a score.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from fmsd.atomic import atomic
from fmsd.data.frame import DIGEST_COLUMNS, REAL, SCHEMA
from fmsd.data.manifest import Manifest
from fmsd.data.prepared_folder import RECORDS, crop_settings
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.outcomes import NO_FACE, NO_FRAME, UNREADABLE
from fmsd.tables import read_table

log = logging.getLogger(__name__)

ABSENT = "absent.parquet"
"""The list of these videos, in a folder that `fmsd extract` or `fmsd pack` wrote."""

ABSENT_SCHEMA = pl.Schema(
    {name: SCHEMA[name] for name in ("video", "label", "dataset", "domain", "split", "compression")}
    | {"outcome": pl.String}
)
"""The columns of the list."""

ROWS = pl.Schema({name: SCHEMA[name] for name in DIGEST_COLUMNS} | {"outcome": pl.String})
"""The columns of a row of predictions that stands for such a video."""


def write_absent(folder: Path, absent: pl.DataFrame) -> None:
    """Writes the list of a folder's absent videos, atomically."""
    with atomic(folder / ABSENT) as partial:
        absent.write_parquet(partial)


def read_absent(folder: Path) -> pl.DataFrame | None:
    """The absent videos of a prepared folder; None where they are not known.

    Raises:
        InputError: the list is damaged.
    """
    path = folder / ABSENT
    if not path.is_file() or not any((folder / name).is_file() for name in RECORDS):
        return None
    remedy = "run fmsd extract again, or copy the pack again"
    absent = read_table(path, ABSENT_SCHEMA, remedy).select(ABSENT_SCHEMA.names())
    if not absent["outcome"].is_in([NO_FACE, UNREADABLE]).all():
        raise InputError(f"{path} is damaged: its column 'outcome' holds other words", remedy)
    return absent


def of_selection(absent: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The absent videos of a selection's forgeries and compression."""
    forgeries, compression = selection.forgeries, selection.compression
    if forgeries is not None:
        absent = absent.filter(pl.col("domain").is_in([REAL, *forgeries]))
    if compression not in (None, "all"):
        absent = absent.filter(pl.col("compression").is_in([compression, ""]))
    return absent


def load_absent(selection: Selection, tests: Mapping[str, Manifest]) -> dict[str, pl.DataFrame]:
    """The absent videos of every test dataset, by the rules that chose its frames.

    Where a number of videos is given (`data.videos`), those are expected that it passed over. A
    manifest that `data.manifest` names has no absent videos: it says itself what is expected.

    Args:
        tests: the frames that are tested, by dataset.

    Returns:
        By dataset, the columns of a manifest's digest and `outcome`, without a path and with the
        index -1.

    Raises:
        InputError: a list is damaged.
    """
    lists = {root: read_absent(root) for root in {test.root for test in tests.values()}}
    for root, absent in lists.items():
        if absent is None and crop_settings(root) is not None:
            log.info(
                "%s does not list the videos without a face, so tests do not count them; fmsd "
                "extract writes the list.",
                root,
            )
    found = {}
    for name, test in tests.items():
        absent, own = lists[test.root], test.root == selection.root_path
        if absent is None or (own and selection.manifest is not None):
            found[name] = pl.DataFrame(schema=ROWS)
            continue
        rules = selection if own else replace(selection, forgeries=None)
        rows = of_selection(absent, rules).filter(dataset=name, split="test")
        found[name] = _passed_over(rows, test, selection.videos)
    return found


def _passed_over(absent: pl.DataFrame, test: Manifest, videos: int | None) -> pl.DataFrame:
    """The rows of the absent videos of a dataset that a test expects.

    Args:
        absent: those of the same domains and split.
        videos: largest number of videos of a domain; None for all.
    """
    known = test.table.group_by("domain").agg(
        last=pl.col("video").max(), count=pl.col("video").n_unique()
    )
    rows = absent.join(known, on="domain", how="left")
    if videos is not None:
        below = (pl.col("count") < videos) | (pl.col("video") < pl.col("last"))
        rows = rows.filter(below.fill_null(value=True))
    return rows.sort("video").select(
        *(
            {"path": pl.lit(""), "index": pl.lit(NO_FRAME)}.get(name, pl.col(name))
            .cast(kind)
            .alias(name)
            for name, kind in ROWS.items()
        )
    )
