"""What a pack at an address consists of: its files, by its pack.json or by their numbers."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NotRequired

import polars as pl
from pydantic import Field
from typing_extensions import TypedDict

from fmsd.data.remote import MissingError, fetch_size
from fmsd.errors import InputError
from fmsd.json_records import Count, Digest, check_record

log = logging.getLogger(__name__)

PLACES = "pack.parquet"
"""The table of frames: path, tar, offset and size of the bytes in it, and their digest."""

MANIFEST = "manifest.parquet"
"""The rows of the frames, in the same order."""

PLACE_SCHEMA = pl.Schema(
    {"path": pl.String, "tar": pl.String, "offset": pl.Int64, "size": pl.Int64}
)
"""The columns of `PLACES`, but for the digest."""

COPY = "copy the pack again, or pack the dataset anew"

THREADS = 16

MOST_TARS = 100_000
"""Number of tars of a pack at an address, at most."""

NAME = re.compile(r"[0-9]{1,20}\.tar|[a-z]{1,40}\.parquet")
"""A file of a pack: a name of none of the files that the cache keeps beside them."""


class PackedFile(TypedDict):
    """A file of a pack; packs of fmsd 0.1.0 do not record it."""

    bytes: Count | None
    sha256: Digest | None


class _Pack(TypedDict):
    """What is read of pack.json."""

    tars: Annotated[int, Field(ge=0, le=MOST_TARS)]
    files: NotRequired[dict[str, PackedFile]]


def packed_files(address: str, record: Any, remedy: str) -> dict[str, PackedFile]:
    """The files of a pack but pack.json, after a look whether each is there with its length.

    Args:
        record: the content of pack.json, unchecked.
        remedy: what to do about one that is damaged.

    Raises:
        InputError: the record is damaged, or a file is missing or has another length.
    """
    source = f"{address}/pack.json"
    check_record(record, _Pack, source, remedy)
    tars = (f"{number:05d}.tar" for number in range(record["tars"]))
    needed = (PLACES, MANIFEST, *tars)
    if "files" in record:
        recorded: dict[str, PackedFile] = record["files"]
        if missing := [name for name in needed if name not in recorded]:
            raise InputError(f"{source} is damaged: 'files' lacks {missing[0]}", remedy)
        if wrong := [name for name in recorded if not NAME.fullmatch(name)]:
            raise InputError(
                f"{source} is damaged: 'files' has {wrong[0]!r:.60}, no file of a pack", remedy
            )
    else:
        log.warning(
            "%s has no digests of its files, as packs of earlier versions: only lengths are "
            "compared; pack it anew for more.",
            address,
        )
        recorded = {name: {"bytes": None, "sha256": None} for name in (*needed, "absent.parquet")}
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda name: _size(address, name, recorded[name]), recorded))
    return {
        name: {"bytes": size, "sha256": file["sha256"]}
        for (name, file), size in zip(recorded.items(), sizes, strict=True)
        if size is not None
    }


def _size(address: str, name: str, file: PackedFile) -> int | None:
    """The bytes of a file of a pack; None where it may be missing, and is.

    Raises:
        InputError: it is missing or has another length.
    """
    try:
        size = fetch_size(f"{address}/{name}")
    except MissingError:
        if name == "absent.parquet" and file["bytes"] is None:
            return None
        raise
    if size is None and file["bytes"] is None:
        raise InputError(f"The server of {address}/{name} does not tell its length", "pack it anew")
    if None not in (size, file["bytes"]) and size != file["bytes"]:
        raise InputError(
            f"{address}/{name} has {size} instead of {file['bytes']} bytes",
            "copy the pack there again",
        )
    return file["bytes"] if size is None else size
