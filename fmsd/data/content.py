"""The content of frames: a digest of each file's bytes, under whatever name and path it lies.

`fmsd.data.content_files` reads the files.
"""

import hashlib

import polars as pl
import xxhash

CONTENT_SCHEMA = pl.Schema({"path": pl.String, "size": pl.Int64, "content": pl.UInt64})
"""The columns of a table of contents: a frame's path, and size and digest of its bytes."""


def content_digest(data: bytes) -> int:
    """The XXH3 hash of bytes: an unsigned integer of 64 bits.

    It recognises equal files, and does not resist a forger.
    """
    return xxhash.xxh3_64_intdigest(data)


def pixels_digest(predictions: pl.DataFrame) -> str | None:
    """A digest of the files of a dataset in the order of their paths; None where it is unknown.

    Equal files under other names have the same digest if their names have the same order.
    Files that cannot be read count as 0, and videos without a frame (with an index below 0) do not
    count.

    Args:
        predictions: with `path`, `index` and `content`, which those of fmsd 0.1.0 lack.

    Returns:
        Twelve hexadecimal digits.
    """
    if "content" not in predictions.columns:
        return None
    if predictions["content"].null_count():
        frames = predictions.filter(pl.col("index") >= 0)
        predictions = frames.with_columns(pl.col("content").fill_null(0))
    contents = predictions.select("path", "content").sort("path")["content"].to_numpy()
    return hashlib.sha256(contents.astype("<u8").tobytes()).hexdigest()[:12]


def changed_files(before: pl.DataFrame, now: pl.DataFrame) -> list[str]:
    """The paths that two tests of a dataset share but whose files differ, sorted.

    Args:
        before, now: path and content of each frame.
    """
    both = now.join(before.select("path", "content"), on="path", suffix="_before")
    return both.filter(pl.col("content") != pl.col("content_before"))["path"].sort().to_list()
