"""Inspections of files that have not changed since an earlier call, kept in the cache.

A call that is killed is taken up again where it was written last. Files that could not be read are
not kept: what was in the way, as a missing permission, may be gone without a trace in the file.
"""

import logging
import time
from pathlib import Path

import polars as pl

from fmsd.console import track
from fmsd.data.audit.inspect_file import FILES_PER_TASK, INSPECTION_SCHEMA, Job, inspect_all
from fmsd.data.content_cache import STATE_SCHEMA, cached_digests, keep_digests
from fmsd.data.content_files import SETTLED

log = logging.getLogger(__name__)

CACHE = "inspections-1"
"""The folder of the cache; other properties of a file need another name."""

KEPT_EVERY = 15.0
"""Seconds of reading between two writes of the cache, of which a call that is killed loses most."""

WRITE_SHARE = 20
"""Reading lasts at least this many times as long as the write before it."""

WORTH_A_WRITE = 2.0
"""Seconds of reading that are kept at the end; less is as soon done again."""

KEY = (*STATE_SCHEMA, "film")
"""What a known inspection is found by."""

KNOWN_SCHEMA = pl.Schema(
    {
        **STATE_SCHEMA,
        "film": pl.Boolean,
        **{name: kind for name, kind in INSPECTION_SCHEMA.items() if name != "error"},
    }
)
"""The columns of the cache."""


def inspect_changed(
    files: pl.DataFrame, root: Path, workers: int, cached: bool = True
) -> pl.DataFrame:
    """Inspects files, unless the cache has their inspection in their present state.

    Args:
        files: the columns of `STATE_SCHEMA`, and those of `Job` besides the place; a file may be
            listed more than once.
        root: of the dataset.
        workers: processes that read files; 0 for this one.
        cached: use the cache; without, all files are read again, and their inspections kept.

    Returns:
        The columns of `INSPECTION_SCHEMA`, a row per file.
    """
    began = time.time_ns()
    files = files.with_row_index("place")
    known = cached_digests(root, CACHE, KNOWN_SCHEMA, complete=False) if cached else None
    found = pl.DataFrame(schema={"place": pl.UInt32, **INSPECTION_SCHEMA})
    if known is not None and known.height:
        found = files.select("place", "hashed", *KEY).join(known, on=KEY, maintain_order="left")
        found = found.filter(pl.col("digest").is_not_null() | ~pl.col("hashed"))
        found = found.with_columns(error=pl.lit(None, pl.String))
        log.info(
            "%d of %d files have not changed since they were read; cached=false reads all again",
            found.height,
            files.height,
        )
    unread = files.join(found, on="place", how="anti", maintain_order="left")
    jobs = [Job(*row) for row in unread.select("file", "size", "hashed", "film").rows()]
    inspections = inspect_all(jobs, min(workers, len(jobs) // FILES_PER_TASK + 1))
    read = list[pl.DataFrame]()
    batch = list[tuple[object, ...]]()
    written, pause, done = time.monotonic(), KEPT_EVERY, 0

    def keep() -> None:
        """Moves the batch to what is read, and writes that."""
        nonlocal written, pause, done
        rows = pl.DataFrame(batch, INSPECTION_SCHEMA, orient="row")
        read.append(unread.slice(done, len(batch)).select("place", *KEY).hstack(rows))
        done += len(batch)
        batch.clear()
        start = time.monotonic()
        if start - written >= min(WORTH_A_WRITE, pause):
            _keep(root, pl.concat(read), began)
        written = time.monotonic()
        pause = max(KEPT_EVERY, WRITE_SHARE * (written - start))

    for inspection in track(inspections, "Opening files", len(jobs), "files"):
        batch.append(inspection)
        if time.monotonic() - written >= pause:
            keep()
    keep()
    columns = ["place", *INSPECTION_SCHEMA]
    every = pl.concat([found.select(columns), *(part.select(columns) for part in read)])
    return every.sort("place").drop("place")


def _keep(root: Path, read: pl.DataFrame, began: int) -> None:
    """Adds inspections to the cache, beside those that another process wrote meanwhile.

    Args:
        began: nanoseconds; files that changed shortly before may change again unseen.
    """
    fresh = read.filter(pl.col("error").is_null(), pl.col("modified") < began - SETTLED)
    kept = [cached_digests(root, CACHE, KNOWN_SCHEMA, complete=False), fresh]
    known = pl.concat([part.select(KNOWN_SCHEMA.names()) for part in kept])
    keep_digests(root, known.unique("file", keep="last", maintain_order=True), CACHE)
