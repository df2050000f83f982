"""Reads the images of a manifest: digest of the bytes, contrast and perceptual hashes of each."""

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from fmsd.console import track
from fmsd.data.content import content_digest
from fmsd.data.content_cache import STATE_SCHEMA, cached_digests, keep_digests
from fmsd.data.content_files import KEPT_AT_ONCE, LEAST, SETTLED, file_states
from fmsd.data.loading.image import decode, read_bytes
from fmsd.data.manifest import Manifest
from fmsd.data.perceptual_hash import TRIMS, WORDS, perceptual_hashes
from fmsd.data.processes import map_in_processes
from fmsd.errors import InputError, reason

FILES_PER_TASK = 64
"""Number of files that a process is given at once."""

HASHES = [f"hash_{trim}_{word}" for trim in range(len(TRIMS)) for word in range(WORDS)]
"""The columns of the words of an image's hashes."""

READ_SCHEMA = pl.Schema(
    {
        "error": pl.String,
        "size": pl.Int64,
        "content": pl.UInt64,
        "contrast": pl.Float64,
        **dict.fromkeys(HASHES, pl.UInt64),
    }
)
"""The columns of what was read; all but the first are null where it names an error."""

KNOWN_SCHEMA = pl.Schema(
    {**STATE_SCHEMA, **{name: kind for name, kind in READ_SCHEMA.items() if name != "error"}}
)
"""The columns of the cache."""

CACHE = "perceptual-1"
"""The folder of the cache; another definition of the hash needs another name."""


class ReadImage(NamedTuple):
    """What is read of an image, or why it cannot be read.

    Args:
        hashes: see `fmsd.data.perceptual_hash.perceptual_hashes`, one word after the other.
    """

    error: str | None = None
    size: int | None = None
    content: int | None = None
    contrast: float | None = None
    hashes: Sequence[int | None] = (None,) * len(HASHES)

    def row(self) -> tuple[object, ...]:
        """The values of `READ_SCHEMA`."""
        return (*self[:-1], *self.hashes)


CRASHED = ReadImage("the decoder crashed on it, or memory ran out")
"""The result for an image that kills the process which reads it."""


def read_hashes(manifest: Manifest, workers: int) -> pl.DataFrame:
    """Reads every image of a manifest, unless the cache has its hashes in its present state.

    A pass that ends early goes on from the last `KEPT_AT_ONCE` images.

    Args:
        workers: processes that read images; 0 for this one.

    Returns:
        The manifest's columns with those of `READ_SCHEMA`.
    """
    began, known = time.time_ns(), cached_digests(manifest.root, CACHE, KNOWN_SCHEMA)
    states = file_states(manifest.files()).select(STATE_SCHEMA.names())
    unread = states.unique("file", maintain_order=True).join(
        known, on=STATE_SCHEMA.names(), how="anti", nulls_equal=True, maintain_order="left"
    )
    jobs = unread["file"].to_list()
    results = map_in_processes(
        read_image_hashes, jobs, min(workers, len(jobs) // FILES_PER_TASK + 1), CRASHED,
        FILES_PER_TASK,
    )  # fmt: skip
    images = track(results, f"Hashing {manifest.root}", len(jobs), "images")
    failed = pl.DataFrame(schema={"file": pl.String, "error": pl.String})
    done = 0
    while batch := list(itertools.islice(images, KEPT_AT_ONCE)):
        read = pl.DataFrame([image.row() for image in batch], READ_SCHEMA, orient="row")
        read = unread.slice(done, len(batch)).hstack(read)
        failed = pl.concat([failed, read.drop_nulls("error").select("file", "error")])
        fresh = read.filter(pl.col("error").is_null()).select(KNOWN_SCHEMA.names())
        known = pl.concat([known, fresh]).unique("file", keep="last")
        done += len(batch)
        if len(batch) >= LEAST:
            keep_digests(manifest.root, known.filter(pl.col("modified") < began - SETTLED), CACHE)
    found = states.join(
        known.drop("bytes", "modified"), on="file", how="left", maintain_order="left"
    )
    found = found.join(failed, on="file", how="left", maintain_order="left")
    return manifest.table.hstack(found.select(READ_SCHEMA.names()))


def read_image_hashes(place: str) -> ReadImage:
    """Reads one image; whatever a decoder raises on damaged bytes is its error."""
    try:
        data = read_bytes(place)
        contrast, hashes = perceptual_hashes(decode(data, place))
    except Exception as error:
        return ReadImage(error.message if isinstance(error, InputError) else reason(error))
    return ReadImage(None, len(data), content_digest(data), contrast, hashes.ravel().tolist())
