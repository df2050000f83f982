"""A dataset as a few large tars, which a cluster's file system reads fast; frames keep their rows.

The tars are in the format of `webdataset`: KEY.jpg, the unchanged bytes of the image, and KEY.json,
its row of the manifest.
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import NO_ROOM, atomic
from fmsd.data.loading.image import decode, read_bytes
from fmsd.errors import InputError, reason
from fmsd.names import check_name
from fmsd.tables import read_parquet

MARK = "pack.json"
"""The file that marks a folder as a pack; it is written last."""

PLACES = "pack.parquet"
"""The table of frames: path, tar, and offset and size of the bytes in it."""

READER_THREADS = 16
"""Threads that read images: on a cluster, opening a file is slow but needs no processor."""

TAR_BLOCK = 512
"""Bytes of a member's header in a tar; members begin at multiples of it."""


def write_pack(
    table: pl.DataFrame,
    files: Sequence[str],
    out: Path,
    size: int,
    crops: Mapping[str, Any] | None = None,
) -> int:
    """Writes a manifest and its frames into `out`; on failure the written files are removed.

    Args:
        table: the manifest's rows.
        files: the image file of each row.
        out: a folder, new or empty.
        size: bytes after which another tar begins.
        crops: the settings of `fmsd extract` that made the images; None where it did not.

    Returns:
        The number of tars.

    Raises:
        InputError: `out` is not empty or cannot be written, or an image is missing or damaged.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds a pack already" if (out / MARK).is_file() else "is not an empty folder"
        raise InputError(f"{out} {what}", "choose another folder with out=FOLDER, or remove it")
    written: list[Path] = []
    places = list[tuple[str, int, int]]()
    try:
        out.mkdir(parents=True, exist_ok=True)
        frames = zip(table.iter_rows(named=True), _contents(files), strict=True)
        while len(places) < table.height:
            written.append(out / f"{len(written):05d}.tar")
            with (
                atomic(written[-1]) as partial,
                tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for row, data in frames:
                    key = f"{len(places):09d}"
                    kind = Path(row["path"]).suffix[1:].lower() or "image"
                    places.append((written[-1].name, _add(tar, f"{key}.{kind}", data), len(data)))
                    _add(tar, f"{key}.json", json.dumps(row).encode())
                    if tar.offset >= size:
                        break
        tars = len(written)
        where = pl.DataFrame(
            places, schema={"tar": pl.String, "offset": pl.Int64, "size": pl.Int64}, orient="row"
        )
        for name, columns in (
            (PLACES, where.insert_column(0, table["path"])),
            ("manifest.parquet", table),
        ):
            written.append(out / name)
            with atomic(written[-1]) as partial:
                columns.write_parquet(partial)
        with atomic(out / MARK) as partial:
            partial.write_text(
                json.dumps({"frames": table.height, "tars": tars, "crops": crops}) + "\n",
                encoding="utf-8",
            )
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            room = "make room there, or " if error.errno in NO_ROOM else ""
            raise InputError(
                f"{out} cannot be written ({error.strerror or reason(error)})",
                f"{room}choose another folder with out=FOLDER",
            ) from error
        raise
    return tars


def frame_places(root: Path, paths: pl.Series) -> pl.Series | None:
    """The place TAR#OFFSET+SIZE of each path of a manifest; None where the folder is not a pack.

    Raises:
        InputError: the folder is incomplete, or a path was not packed.
    """
    if not (root / MARK).is_file():
        return None
    if not (root / PLACES).is_file():
        raise InputError(f"{root} holds a pack without {PLACES}", "complete the copy")
    places = _read_places(root / PLACES)
    table = paths.alias("path").to_frame()
    table = table.join(places, on="path", how="left", maintain_order="left")
    if table["tar"].null_count():
        raise InputError(
            f"The pack {root} does not hold {table.filter(pl.col('tar').is_null())['path'][0]}",
            "pack the dataset again",
        )
    return table.select(
        pl.format("{}{}#{}+{}", pl.lit(f"{root.as_posix().rstrip('/')}/"), "tar", "offset", "size")
    ).to_series()


PLACE_SCHEMA = pl.Schema(
    {"path": pl.String, "tar": pl.String, "offset": pl.Int64, "size": pl.Int64}
)
"""The columns of `PLACES`."""


def _read_places(path: Path) -> pl.DataFrame:
    """The table of a pack's frames.

    Raises:
        InputError: the table is damaged, has a path twice, or leads out of the pack's folder.
    """
    try:
        places = read_parquet(path).select(PLACE_SCHEMA.names()).cast(PLACE_SCHEMA)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path} is no table of a pack ({reason(error)})", "copy the pack again"
        ) from error
    for tar in places["tar"].unique():
        check_name(tar, f"tar in {path}")
    if (
        places["path"].is_duplicated().any()
        or places.filter((pl.col("offset") < 0) | (pl.col("size") < 0)).height
    ):
        raise InputError(
            f"{path} is damaged: a path is there twice, or a place is negative",
            "copy the pack again",
        )
    return places


def _contents(files: Sequence[str]) -> Iterator[bytes]:
    """The bytes of each image, read by several threads a few blocks ahead of the consumer."""
    with ThreadPoolExecutor(READER_THREADS) as pool:
        for start in range(0, len(files), 16 * READER_THREADS):
            yield from pool.map(
                _read_checked, itertools.islice(files, start, start + 16 * READER_THREADS)
            )


def _read_checked(file: str) -> bytes:
    """The bytes of an image, checked to be decodable."""
    data = read_bytes(file)
    decode(data, file)
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a member to a tar, and returns the offset of its bytes."""
    about = tarfile.TarInfo(name)
    about.size = len(data)
    begin = tar.offset + TAR_BLOCK
    tar.addfile(about, io.BytesIO(data))
    return begin
