"""The content of frames: a digest of each file's bytes, under whatever name and path it lies."""

import contextlib
import functools
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import xxhash

from fmsd.console import track
from fmsd.data.loading.image import parse_tar_member, read_bytes
from fmsd.data.manifest import Manifest

CONTENT_SCHEMA = pl.Schema({"path": pl.String, "size": pl.Int64, "content": pl.UInt64})
"""The columns of a table of contents: a frame's path, and size and digest of its bytes."""

READER_THREADS = 16
"""Threads that read files: on a cluster, opening a file is slow but needs no processor."""

BLOCK = 64
"""Files per task of a thread."""


def content_digest(data: bytes) -> int:
    """The XXH3 hash of bytes: an unsigned integer of 64 bits.

    It recognises equal files, and does not resist a forger.
    """
    return xxhash.xxh3_64_intdigest(data)


def read_digests(places: Sequence[str]) -> pl.Series:
    """The digest of each file, or member of a tar; every one is read.

    Raises:
        InputError: a file cannot be read.
    """
    blocks = [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]
    with ThreadPoolExecutor(READER_THREADS) as pool:
        digests = (digest for block in pool.map(_read_block, blocks) for digest in block)
        found = list(track(digests, "Comparing files", len(places), "files"))
    return pl.Series(found, dtype=pl.UInt64)


def _read_block(places: Sequence[str]) -> list[int]:
    return [content_digest(read_bytes(place)) for place in places]


def read_contents(manifest: Manifest) -> pl.DataFrame:
    """The content of each file of a manifest, which may list a file more than once.

    Raises:
        InputError: a file cannot be read.
    """
    files = manifest.table.select("path").with_columns(
        file=pl.Series(manifest.files(), dtype=pl.String)
    )
    files = files.unique("path", maintain_order=True)
    places = files["file"].to_list()
    return files.select(
        "path", size=pl.Series(list(file_sizes(places)), dtype=pl.Int64)
    ).with_columns(content=read_digests(places))


def pixels_digest(predictions: pl.DataFrame) -> str | None:
    """A digest of the files of a dataset in the order of their paths; None where it is unknown.

    Equal files under other names have the same digest if their names have the same order.

    Args:
        predictions: with `path` and `content`, which those of fmsd 0.1.0 lack.

    Returns:
        Twelve hexadecimal digits.
    """
    if "content" not in predictions.columns:
        return None
    contents = predictions.sort("path")["content"].to_numpy()
    return hashlib.sha256(contents.astype("<u8").tobytes()).hexdigest()[:12]


def changed_files(before: pl.DataFrame, now: pl.DataFrame) -> list[str]:
    """The paths that two tests of a dataset share but whose files differ, sorted.

    Args:
        before, now: path and content of each frame.
    """
    both = now.join(before.select("path", "content"), on="path", suffix="_before")
    return both.filter(pl.col("content") != pl.col("content_before"))["path"].sort().to_list()


def file_sizes(places: Iterable[str]) -> Iterator[int | None]:
    """The bytes of each file, or member of a tar; None where there is no such file."""
    is_file = functools.cache(os.path.isfile)
    for place in places:
        if member := parse_tar_member(place):
            yield member[2] if is_file(member[0]) else None
            continue
        size = None
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(place)  # noqa: PTH116  a million paths pass
            size = status.st_size if stat.S_ISREG(status.st_mode) else None
        yield size
