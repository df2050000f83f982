"""A dataset as a few large tars: what a cluster's file system reads well, with each frame still found by its row.

A tar is one that `webdataset` reads too: KEY.jpg, the image's bytes as they were, and KEY.json, its
row of the manifest.
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

from fmsd.atomic import atomic
from fmsd.data.loading.image import decode, read_bytes
from fmsd.errors import InputError, reason
from fmsd.names import check_name
from fmsd.tables import read_parquet

MARK = "pack.json"
"""What tells a packed folder; it is written last."""

PLACES = "pack.parquet"
"""Where each frame lies: path, tar, offset and size of its bytes."""

READERS = 16
"""Threads that read: opening a file on a cluster takes long and keeps no processor busy."""

BLOCK = 512
"""Bytes of a tar's header; members begin at multiples of it."""


def write(
    table: pl.DataFrame,
    files: Sequence[str],
    out: Path,
    size: int,
    crops: Mapping[str, Any] | None = None,
) -> int:
    """Writes a manifest and its frames into `out`, and returns the number of tars. What a failure leaves behind is removed.

    Args:
        table: the manifest's rows.
        files: the place of each row's image.
        out: a folder, new or empty.
        size: bytes after which another tar begins.
        crops: how the images were made by `fmsd extract`, if they were; it goes with them.

    Raises:
        InputError: `out` holds something or cannot be written, or an image is missing or damaged.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds a pack already" if (out / MARK).is_file() else "is not an empty folder"
        raise InputError(f"{out} {what}", "choose another folder with out=FOLDER, or remove it")
    made = list[Path]()
    places = list[tuple[str, int, int]]()
    try:
        out.mkdir(parents=True, exist_ok=True)
        frames = zip(table.iter_rows(named=True), _contents(files), strict=True)
        while len(places) < table.height:
            made.append(out / f"{len(made):05d}.tar")
            with (
                atomic(made[-1]) as partial,
                tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for row, data in frames:
                    key, kind = (
                        f"{len(places):09d}",
                        Path(row["path"]).suffix[1:].lower() or "image",
                    )
                    places.append((made[-1].name, _add(tar, f"{key}.{kind}", data), len(data)))
                    _add(tar, f"{key}.json", json.dumps(row).encode())
                    if tar.offset >= size:
                        break
        tars = len(made)
        where = pl.DataFrame(
            places, schema={"tar": pl.String, "offset": pl.Int64, "size": pl.Int64}, orient="row"
        )
        for name, columns in (
            (PLACES, where.insert_column(0, table["path"])),
            ("manifest.parquet", table),
        ):
            made.append(out / name)
            with atomic(made[-1]) as partial:
                columns.write_parquet(partial)
        with atomic(out / MARK) as partial:
            partial.write_text(
                json.dumps({"frames": table.height, "tars": tars, "crops": crops}) + "\n",
                encoding="utf-8",
            )
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                f"{out} cannot be written ({reason(error)})",
                "make room there, or choose another folder with out=FOLDER",
            ) from error
        raise
    return tars


def located(root: Path, paths: pl.Series) -> pl.Series | None:
    """The place TAR#OFFSET+SIZE of each path of a manifest in a packed folder; None for any other folder.

    Raises:
        InputError: the folder is incomplete, or a path was not packed.
    """
    if not (root / MARK).is_file():
        return None
    if not (root / PLACES).is_file():
        raise InputError(f"{root} holds a pack without {PLACES}", "complete the copy")
    asked = paths.alias("path").to_frame()
    places = _places(root / PLACES)
    found = asked.join(places, on="path", how="left", maintain_order="left")
    if found["tar"].null_count():
        raise InputError(
            f"The pack {root} does not hold {found.filter(pl.col('tar').is_null())['path'][0]}",
            "pack the dataset again",
        )
    return found.select(
        pl.format("{}{}#{}+{}", pl.lit(f"{root.as_posix().rstrip('/')}/"), "tar", "offset", "size")
    ).to_series()


COLUMNS = pl.Schema({"path": pl.String, "tar": pl.String, "offset": pl.Int64, "size": pl.Int64})
"""The columns of the table of places."""


def _places(path: Path) -> pl.DataFrame:
    """Where each path of a pack lies.

    Raises:
        InputError: the table is damaged, has a path twice, or leads out of the pack's own tars.
    """
    try:
        places = read_parquet(path).select(COLUMNS.names()).cast(COLUMNS)
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
    """The bytes of each image, which can be decoded; read by several threads, a few ahead of what is asked for."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), 16 * READERS):
            yield from pool.map(_checked, itertools.islice(files, start, start + 16 * READERS))


def _checked(file: str) -> bytes:
    """The bytes of an image that can be decoded."""
    data = read_bytes(file)
    decode(data, file)
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a member, and returns where its bytes begin."""
    about = tarfile.TarInfo(name)
    about.size = len(data)
    begin = tar.offset + BLOCK
    tar.addfile(about, io.BytesIO(data))
    return begin
