"""A disk cache of digests of files, so that a file is read once as long as it stays the same.

It has one table per root of a dataset, and a file stays the same as long as its size and its time
of modification do. A cache that is damaged or cannot be written costs time and nothing else.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.errors import InputError
from fmsd.tables import read_table

log = logging.getLogger(__name__)

CONTENTS = "contents"
"""The folder of digests of bytes."""

STATE_SCHEMA = pl.Schema({"file": pl.String, "bytes": pl.Int64, "modified": pl.Int64})
"""A place, and size and time of modification (ns) of its file; for a member of a tar, the tar's."""

MOST = 10_000_000
"""Most files of a root whose digests are kept."""

CACHE_SCHEMA = pl.Schema({**STATE_SCHEMA, "size": pl.Int64, "content": pl.UInt64})
"""The columns of the cache: the state of a file, and size and digest of what was read there."""


def cached_digests(
    root: Path, kind: str, schema: Mapping[str, Any], complete: bool = True
) -> pl.DataFrame:
    """The digests of the files below a root that are known; none if there is no good cache.

    Args:
        kind: the folder of the cache, one for each kind of digest.
        schema: the columns of such digests, which begin with those of `STATE_SCHEMA`.
        complete: whether every value is known.
    """
    empty = pl.DataFrame(schema=pl.Schema(schema))
    # a row whose checksum differs, as after a flipped bit, is not used
    checked = pl.Schema({**schema, "checksum": pl.UInt64})
    try:
        path = cache_file(root, kind)
        stored = read_table(path, checked, "remove it", complete) if path.is_file() else None
    except (InputError, OSError) as error:
        log.warning("The digests of files below %s are read again: %s", root, error)
        return empty
    if stored is None:
        return empty
    known = stored.select(schema.keys())
    return known.filter(known.hash_rows() == stored["checksum"]).unique("file", keep="last")


def keep_digests(root: Path, known: pl.DataFrame, kind: str = CONTENTS) -> None:
    """Writes the digests of the files below a root that are known, the last `MOST` of them."""
    known = known.tail(MOST)
    try:
        with atomic(cache_file(root, kind)) as partial:
            known.with_columns(checksum=known.hash_rows()).write_parquet(partial)
    except InputError as error:
        _warn(error.message)
    except OSError as error:
        _warn(f"{error.filename or cache_folder()} cannot be written ({error.strerror or error})")


@functools.cache
def _warn(why: str) -> None:
    """Logs once, not once a table, that nothing is kept."""
    log.warning(
        "The digests of files are not kept, so the next run reads the files again: %s; set "
        "FMSD_CACHE to a folder that can be written.",
        why,
    )


def cache_file(root: Path, kind: str = CONTENTS) -> Path:
    """The file with the digests of a root.

    Raises:
        InputError: there is no home folder for the cache.
    """
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
    return cache_folder() / kind / f"{name}.parquet"
