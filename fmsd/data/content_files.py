"""Reads the content of frames: size and digest of every file of a manifest."""

import contextlib
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from fmsd.console import track
from fmsd.data.content import content_digest
from fmsd.data.loading.image import parse_tar_member, read_bytes
from fmsd.data.manifest import Manifest

READER_THREADS = 16
"""Threads that read files: on a cluster, opening a file is slow but needs no processor."""

BLOCK = 64
"""Files per task of a thread."""


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
