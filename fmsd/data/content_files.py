"""Reads the content of frames: size and digest of every file of a manifest."""

import functools
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import polars as pl

from fmsd.console import track
from fmsd.data.content import content_digest
from fmsd.data.content_cache import (
    CACHE_SCHEMA,
    CONTENTS,
    STATE_SCHEMA,
    cached_digests,
    keep_digests,
)
from fmsd.data.loading.image import parse_tar_member, read_bytes
from fmsd.data.manifest import Manifest
from fmsd.data.mirror import remote_size
from fmsd.data.pack import packed_contents

READER_THREADS = 16
"""Threads that read files: on a cluster, opening a file is slow but needs no processor."""

BLOCK = 64
"""Files per task of a thread."""

LEAST = 1000
"""Fewer newly read files than this are not worth a write of the cache."""

KEPT_AT_ONCE = 100_000
"""Files between two writes of the cache: a pass that is killed goes on from the last one."""

SETTLED = 2 * 10**9
"""Nanoseconds after which a further change of a file has another time of modification."""

Result = TypeVar("Result")


def read_contents(manifest: Manifest) -> pl.DataFrame:
    """The content of each file of a manifest, which may list a file more than once.

    Raises:
        InputError: a file cannot be read.
    """
    files = manifest.table.select("path").with_columns(
        file=pl.Series(manifest.files(), dtype=pl.String)
    )
    files = files.unique("path", maintain_order=True)
    states = file_states(files["file"].to_list())
    return files.select("path").hstack(read_digests(states, manifest.root))


def read_digests(states: pl.DataFrame, root: Path) -> pl.DataFrame:
    """Reads files, or members of tars, unless the cache has their digest in their present state.

    Args:
        states: see `file_states`.
        root: of the dataset.

    Returns:
        The size and the content of each file.

    Raises:
        InputError: a file cannot be read.
    """
    began, known = time.time_ns(), cached_digests(root, CONTENTS, CACHE_SCHEMA)
    if (packed := packed_contents(root)) is not None:
        known = pl.concat([known, packed])
    states = states.select(STATE_SCHEMA.names())
    unread = states.unique("file", maintain_order=True).join(
        known, on=STATE_SCHEMA.names(), how="anti", maintain_order="left"
    )
    reads = _in_threads(_read_block, unread["file"].to_list())
    digests = track(reads, "Comparing files", unread.height, "files")
    done = 0
    while batch := list(itertools.islice(digests, KEPT_AT_ONCE)):
        schema = pl.Schema({"size": pl.Int64, "content": pl.UInt64})
        read = unread.slice(done, len(batch)).hstack(pl.DataFrame(batch, schema, orient="row"))
        known = pl.concat([known, read]).unique("file", keep="last")
        done += len(batch)
        if len(batch) >= LEAST:
            keep_digests(root, known.filter(pl.col("modified") < began - SETTLED))
    return states.join(known, on="file", how="left", maintain_order="left").select(
        "size", "content"
    )


def file_contents(manifest: Manifest) -> pl.Series:
    """The digest of the bytes of each frame's file; null where there is no such file."""
    states = file_states(manifest.files())
    there = states["bytes"].is_not_null()
    digests = read_digests(states.filter(there), manifest.root)["content"]
    rows = pl.DataFrame({"row": there.arg_true(), "content": digests})
    every = pl.DataFrame({"row": pl.arange(len(there), eager=True, dtype=pl.UInt32)})
    return every.join(rows, on="row", how="left", maintain_order="left")["content"]


def _read_block(places: Sequence[str]) -> list[tuple[int, int]]:
    """The size and the digest of each file."""
    contents = (read_bytes(place) for place in places)
    return [(len(data), content_digest(data)) for data in contents]


def file_states(places: Sequence[str]) -> pl.DataFrame:
    """The present state of each file, or member of a tar.

    Returns:
        The columns of `STATE_SCHEMA`, and size, that of the file or member itself; null where there
        is no such file.
    """
    states = _in_threads(_states_of_block, places)
    rows = list(track(states, "Looking for files", len(places), "files"))
    numbers = ("size", "bytes", "modified")
    table = pl.DataFrame(rows, dict.fromkeys(numbers, pl.Int64), orient="row")
    return table.select(pl.Series("file", places, dtype=pl.String), *numbers)


def _states_of_block(places: Sequence[str]) -> list[tuple[int | None, int | None, int | None]]:
    """The size of each file or member, and bytes and time of modification of the file it is in."""
    known_tar = functools.cache(_status)
    states = []
    for place in places:
        member = parse_tar_member(place)
        size, modified = known_tar(member[0]) if member else _status(place)
        states.append((member[2] if member and size is not None else size, size, modified))
    return states


def _status(path: str) -> tuple[int | None, int | None]:
    """The bytes and the time of modification of a file; None where there is none.

    A tar at an address has no time: where its content changes, its folder is another.
    """
    if (size := remote_size(path)) is not None:
        return size, 0
    try:
        status = os.stat(path)  # noqa: PTH116  a million paths pass
    except (OSError, ValueError):
        return None, None
    regular = stat.S_ISREG(status.st_mode)
    return (status.st_size, status.st_mtime_ns) if regular else (None, None)


def _in_threads(
    work: Callable[[Sequence[str]], list[Result]], places: Sequence[str]
) -> Iterator[Result]:
    """The results of work on blocks of places, in their order."""
    blocks = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    pool = ThreadPoolExecutor(READER_THREADS)
    try:
        for block in pool.map(work, blocks):
            yield from block
    finally:
        pool.shutdown(cancel_futures=True)
