"""Packs at an address: a folder of the cache stands for one, and its tars are fetched when read.

The folder holds the tables of the pack, and as many of its tars as fit into the cache, together
with those of other packs: those that were read longest ago make room. Whole tars are fetched, not
the bytes of single frames: an epoch that reads each tar once needs one request for a thousand
frames, and reads at the speed of local files between.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import os
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from typing_extensions import TypedDict

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.checks import parse_size
from fmsd.data.content import content_digest
from fmsd.data.packed_files import COPY, PLACE_SCHEMA, PLACES, PackedFile, packed_files
from fmsd.data.remote import (
    Expected,
    FetchError,
    check_address,
    fetch_bytes,
    fetch_file,
    is_remote,
)
from fmsd.errors import InputError
from fmsd.json_records import read_record
from fmsd.lock import open_locked
from fmsd.paths import expand_home
from fmsd.tables import read_parquet_schema, read_table

log = logging.getLogger(__name__)

LIMIT = "FMSD_PACK_CACHE"
"""The environment variable with the most bytes of tars in the cache."""

RECORD = "remote.json"
"""The file that marks a folder of the cache as complete; it is written last."""

CONTENTS = "contents.npz"
"""The offset, size and digest of the frames in each tar, where the pack records digests."""

ABANDONED = 600
"""Seconds without a further byte after which a file that is being fetched counts as left behind.

All pauses between attempts are shorter, see `fmsd.data.remote`.
"""


class _Mirror(TypedDict):
    """The record of a folder of the cache."""

    address: str
    files: dict[str, PackedFile]


def root_folder(root: str) -> Path:
    """The folder of a root: the absolute path, or the mirror of the pack at an address."""
    return (
        mirror(check_address(root), _packs()) if is_remote(root) else expand_home(root).absolute()
    )


@functools.cache
def mirror(address: str, packs: Path) -> Path:
    """The folder that stands for a pack at an address, with its tables, which are fetched.

    Another content of the pack has another folder, so nothing in one is ever replaced.

    Args:
        packs: the folder of all such folders.

    Raises:
        InputError: there is no pack, it is incomplete, or it cannot be fetched.
    """
    content = fetch_bytes(f"{address}/pack.json")
    remedy = "give the address of a folder that fmsd pack wrote, or copy it again"
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{address}/pack.json is no JSON", remedy) from error
    files = packed_files(address, record, remedy)
    described = json.dumps([address, content.decode(), files])
    folder = packs / hashlib.sha256(described.encode()).hexdigest()[:32]
    with open_locked(folder / "lock", math.inf):
        if not (folder / RECORD).is_file():
            for name, file in files.items():
                if not name.endswith(".tar"):
                    with atomic(folder / name) as partial:
                        fetch_file(
                            f"{address}/{name}",
                            partial,
                            Expected(file["bytes"] or 0, file["sha256"]),
                        )
            with atomic(folder / "pack.json") as partial:
                partial.write_bytes(content)
            _keep_contents(folder, files)
            with atomic(folder / RECORD) as partial:
                partial.write_text(
                    json.dumps({"address": address, "files": files}), encoding="utf-8"
                )
    return folder


@functools.cache
def mirror_record(folder: str) -> _Mirror | None:
    """The record of a folder of the cache; None for any other folder."""
    path = Path(folder) / RECORD
    return read_record(path, _Mirror, f"remove {folder}") if path.is_file() else None


def remote_size(tar: str) -> int | None:
    """The bytes of a tar of a pack at an address, fetched or not; None for any other file."""
    folder, name = os.path.split(tar)
    record = mirror_record(folder)
    return None if record is None else record["files"].get(name, {"bytes": None})["bytes"]


def open_remote(tar: str) -> io.FileIO | None:
    """A tar of a pack at an address, fetched if it is not there; None for any other file.

    It is not kept open for longer than a read: as long as it is open, the room of one that makes
    way is not free.

    Raises:
        InputError: it cannot be fetched.
    """
    if mirror_record(os.path.dirname(tar)) is None:  # noqa: PTH120  for every frame
        return None
    try:
        file = io.FileIO(tar)
    except FileNotFoundError:
        file = fetch_tar(Path(tar), math.inf)
        assert file is not None
    with contextlib.suppress(OSError):  # it may have made way; the time of modification stays
        os.utime(file.fileno(), ns=(time.time_ns(), os.fstat(file.fileno()).st_mtime_ns))
    return file


def fetch_tar(tar: Path, patience: float) -> io.FileIO | None:
    """Fetches a tar of a pack at an address, unless it is there, and opens it.

    Args:
        patience: seconds to wait for another process that fetches it.

    Returns:
        None if another process still fetches it.

    Raises:
        FetchError: it cannot be fetched, or holds other frames than the pack's table says.
    """
    try:
        return _fetch_tar(tar, patience)
    except InputError as error:
        raise FetchError(error.message, error.remedy) from error


def _fetch_tar(tar: Path, patience: float) -> io.FileIO | None:
    """See `fetch_tar`."""
    record = mirror_record(str(tar.parent))
    assert record is not None
    listed = record["files"][tar.name]
    file = Expected(listed["bytes"] or 0, listed["sha256"])
    with open_locked(tar.with_suffix(".lock"), patience) as lock:
        if lock is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            return io.FileIO(tar)
        # a name of its own: where the file system has no locks, several processes fetch a tar
        partial = tar.with_name(f"{tar.stem}.{uuid.uuid4().hex}.partial")
        try:
            _reserve(partial, file.bytes)
            fetch_file(f"{record['address']}/{tar.name}", partial, file)
            opened = io.FileIO(partial)
            _check_contents(opened, tar, record["address"])
            partial.replace(tar)
        finally:
            partial.unlink(missing_ok=True)
        return opened


def _keep_contents(folder: Path, tars: Collection[str]) -> None:
    """Writes the digests in the table of a pack apart, by tar, if it has any.

    Loader processes are forked, and in those polars cannot read the table.

    Raises:
        InputError: the table is damaged.
    """
    if "content" not in read_parquet_schema(folder / PLACES):
        return
    schema = pl.Schema({**PLACE_SCHEMA, "content": pl.UInt64})
    rows = read_table(folder / PLACES, schema, COPY)
    columns = [pl.col(name).reinterpret(signed=False) for name in ("offset", "size")]
    parts = rows.filter(pl.col("tar").is_in(list(tars))).partition_by("tar", as_dict=True)
    tables = {
        str(tar): part.select(*columns, "content").to_numpy() for (tar,), part in parts.items()
    }
    with atomic(folder / CONTENTS) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **tables)


def _check_contents(file: io.FileIO, tar: Path, address: str) -> None:
    """Compares the frames in a tar with the digests in the pack's table, if it has any.

    By these digests alone, training frames are recognised in tests before tars are fetched.

    Raises:
        InputError: a frame has another digest.
    """
    if not (tar.parent / CONTENTS).is_file():
        return
    with np.load(tar.parent / CONTENTS, allow_pickle=False) as tables:
        rows = tables[tar.name].tolist()
    length = os.fstat(file.fileno()).st_size
    for offset, size, content in rows:
        if content_digest(os.pread(file.fileno(), min(size, length), offset)) != content:
            raise InputError(
                f"{address}/{tar.name} does not hold the bytes, from {offset} on, whose digest "
                f"{address}/{PLACES} records",
                COPY,
            )


def cache_limit() -> int:
    """The most bytes of tars in the cache: `$FMSD_PACK_CACHE`, or 20 GiB.

    Raises:
        InputError: the variable holds no size.
    """
    return parse_size(os.environ.get(LIMIT) or "20G", LIMIT)


def check_room(tars: Sequence[str], at_once: int | None, remedy: str) -> None:
    """Checks that the cache holds the tars that are read in turn; nothing for local files.

    Args:
        tars: the files of the tars that are read.
        at_once: the number of them between which reads change; None for all.
        remedy: what to do beside a larger cache.

    Raises:
        InputError: it is too small.
    """
    sizes = sorted((remote_size(tar) or 0 for tar in tars), reverse=True)
    if (needed := sum(sizes[:at_once])) > cache_limit():
        raise InputError(
            f"{len(sizes[:at_once])} tars of the pack are read in turn, {needed / 2**30:.3g} GiB, "
            f"and the cache of packs holds {cache_limit() / 2**30:.3g} GiB",
            f"{remedy}, or set {LIMIT}={math.ceil(needed / 2**30)}G where the disk has room",
        )


def _packs() -> Path:
    return cache_folder().absolute() / "packs"


def _reserve(partial: Path, size: int) -> None:
    """Makes room in the cache for a tar of `size` bytes, and an empty file that stands for it.

    Where other processes are fetching, their tars come first.
    """
    tar = _tar_of(partial)
    check_room([str(tar)], None, "pack with a smaller size=")
    while True:
        with open_locked(_packs() / "lock", math.inf):
            with open_locked(_packs() / "lock", 0) as again:
                locks = again is None
            if locks:  # this process holds the lock of the tar: others were killed
                for left in tar.parent.glob(f"{tar.stem}.*.partial"):
                    left.unlink(missing_ok=True)
            if _make_room(cache_limit() - size, locks):
                partial.touch()
                return
        time.sleep(0.2)


def _make_room(limit: int, locks: bool) -> bool:
    """Removes the tars that were read longest ago until all take at most `limit` bytes.

    Tars that are being fetched count with their whole length; what a killed process left is
    removed: where locks tell nothing, once it has not grown for `ABANDONED` seconds.

    Args:
        locks: whether the file system has locks.

    Returns:
        Whether they do.
    """
    used = 0
    for partial in _packs().glob("*/*.partial"):
        hidden = partial.name.startswith(".")  # of `atomic`: no tar
        try:
            abandoned = time.time() - partial.stat().st_mtime > ABANDONED
        except FileNotFoundError:
            continue
        if locks and not hidden:
            with open_locked(_tar_of(partial).with_suffix(".lock"), 0) as lock:
                abandoned = lock is not None
                if abandoned:
                    partial.unlink(missing_ok=True)
        elif abandoned:
            partial.unlink(missing_ok=True)
        if not (hidden or abandoned):
            used += remote_size(str(_tar_of(partial))) or 0
    kept: list[tuple[int, int, Path]] = []
    for tar in _packs().glob("*/*.tar"):
        with contextlib.suppress(FileNotFoundError):
            status = tar.stat()
            kept.append((status.st_atime_ns, status.st_size, tar))
    used += sum(size for _, size, _ in kept)
    for _, size, tar in sorted(kept):
        if used <= limit:
            break
        tar.unlink(missing_ok=True)
        used -= size
    return used <= limit


def _tar_of(partial: Path) -> Path:
    """The tar that a file NUMBER.UNIQUE.partial becomes."""
    return partial.with_name(f"{partial.name.partition('.')[0]}.tar")
