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
from types import MappingProxyType
from typing import Any

import polars as pl

from fmsd.atomic import NO_ROOM, atomic
from fmsd.data.content import content_digest
from fmsd.data.content_cache import CACHE_SCHEMA
from fmsd.data.loading.image import decode, read_bytes
from fmsd.data.mirror import mirror_record
from fmsd.data.packed_files import COPY, MANIFEST, PLACE_SCHEMA, PLACES
from fmsd.errors import InputError, reason
from fmsd.names import check_name
from fmsd.paths import file_digest
from fmsd.tables import read_parquet_schema, read_table

MARK = "pack.json"
"""The file that marks a folder as a pack; it is written last."""

READER_THREADS = 16
"""Threads that read images: on a cluster, opening a file is slow but needs no processor."""

TAR_BLOCK = 512
"""Bytes of a member's header in a tar; members begin at multiples of it."""

LARGEST_ROW = 64 * TAR_BLOCK
"""Most bytes of a KEY.json; its texts are names of files."""


def write_pack(
    table: pl.DataFrame,
    files: Sequence[str],
    out: Path,
    size: int,
    crops: Mapping[str, Any] | None = None,
    lists: Mapping[str, pl.DataFrame] | None = None,
) -> int:
    """Writes a manifest and its frames into `out`; on failure the written files are removed.

    Args:
        table: the manifest's rows.
        files: the image file of each row.
        out: a folder, new or empty.
        size: bytes after which another tar begins.
        crops: the settings of `fmsd extract` that made the images; None where it did not.
        lists: further tables to write, by the name of the file.

    Returns:
        The number of tars.

    Raises:
        InputError: `out` is not empty or cannot be written, or an image is missing or damaged.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds a pack already" if (out / MARK).is_file() else "is not an empty folder"
        raise InputError(f"{out} {what}", "choose another folder with out=FOLDER, or remove it")
    written: list[Path] = []
    places = list[tuple[str, int, int, int]]()
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
                    begin = _add(tar, f"{key}.{kind}", data)
                    places.append((written[-1].name, begin, len(data), content_digest(data)))
                    _add(tar, f"{key}.json", json.dumps(row).encode())
                    if tar.offset >= size:
                        break
        tars = len(written)
        kinds = {"tar": pl.String, "offset": pl.Int64, "size": pl.Int64, "content": pl.UInt64}
        where = pl.DataFrame(places, schema=kinds, orient="row")
        for name, columns in (
            (PLACES, where.insert_column(0, table["path"])),
            (MANIFEST, table),
            *(lists or {}).items(),
        ):
            written.append(out / name)
            with atomic(written[-1]) as partial:
                columns.write_parquet(partial)
        known = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in written
        }
        record = {"frames": table.height, "tars": tars, "crops": crops, "files": known}
        with atomic(out / MARK) as partial:
            partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
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
    table = _located(root, paths)
    return None if table is None else table.select(_place(root)).to_series()


def frame_tars(root: Path, paths: pl.Series) -> pl.Series | None:
    """The file of the tar of each path of a manifest; None where the folder is not a pack.

    Raises:
        InputError: the folder is incomplete, or a path was not packed.
    """
    table = _located(root, paths)
    return None if table is None else table.select(_below(root) + pl.col("tar")).to_series()


def packed_contents(root: Path) -> pl.DataFrame | None:
    """The recorded content of all frames of a pack at an address, whose tars need no reading.

    Their bytes are compared with the digest of the tar when it is fetched.

    Returns:
        The columns of `CACHE_SCHEMA`; None for other roots, and where nothing is recorded.
    """
    record = mirror_record(str(root))
    if record is None or "content" not in read_parquet_schema(root / PLACES):
        return None
    lengths = {name: file["bytes"] for name, file in record["files"].items()}
    places = _read_places(root, {"content": pl.UInt64})
    return places.select(
        _place(root).alias("file"),
        pl.col("tar").replace_strict(lengths, return_dtype=pl.Int64).alias("bytes"),
        pl.lit(0, pl.Int64).alias("modified"),
        "size",
        "content",
    ).cast(CACHE_SCHEMA)  # pyright: ignore[reportArgumentType]


def _located(root: Path, paths: pl.Series) -> pl.DataFrame | None:
    """The columns of `PLACE_SCHEMA` for paths of a manifest; None if the folder is not a pack."""
    if not (root / MARK).is_file():
        return None
    if not (root / PLACES).is_file():
        raise InputError(f"{root} holds a pack without {PLACES}", "complete the copy")
    places = _read_places(root)
    _check_keys(root, places)
    table = paths.alias("path").to_frame()
    table = table.join(places, on="path", how="left", maintain_order="left")
    if table["tar"].null_count():
        raise InputError(
            f"The pack {root} does not hold {table.filter(pl.col('tar').is_null())['path'][0]}",
            "pack the dataset again",
        )
    return table


def _below(root: Path) -> pl.Expr:
    return pl.lit(f"{root.as_posix().rstrip('/')}/")


def _place(root: Path) -> pl.Expr:
    """The place TAR#OFFSET+SIZE of a frame."""
    return pl.format("{}{}#{}+{}", _below(root), "tar", "offset", "size")


def _read_places(root: Path, further: Mapping[str, Any] = MappingProxyType({})) -> pl.DataFrame:
    """The table of a pack's frames.

    Args:
        further: columns beside those of `PLACE_SCHEMA`.

    Raises:
        InputError: the table is damaged, has a path twice, or leads out of the pack's folder, or to
            a tar that a pack at an address does not have.
    """
    path, record = root / PLACES, mirror_record(str(root))
    schema = pl.Schema({**PLACE_SCHEMA, **further})
    places = read_table(path, schema, COPY).select(schema.names())
    for tar in places["tar"].unique():
        check_name(tar, f"tar in {path}")
        if record is not None and tar not in record["files"]:
            raise InputError(
                f"{record['address']}/{PLACES} is damaged: it places frames in {tar}, which "
                f"{MARK} does not list",
                COPY,
            )
    if places["path"].is_duplicated().any():
        raise InputError(f"{path} is damaged: a path is there twice", COPY)
    if (row := _misplaced(places)) is not None:
        raise InputError(
            f"{path} is damaged: the place of {places['path'][row]} does not follow the frame "
            "before it, as frames do in a tar",
            COPY,
        )
    return places


def _blocks(size: pl.Expr) -> pl.Expr:
    """The bytes that a member of a size takes in a tar, without its header."""
    return (size + TAR_BLOCK - 1) // TAR_BLOCK * TAR_BLOCK


def _misplaced(places: pl.DataFrame) -> int | None:
    """The first row whose frame does not lie where it must; None if all do.

    A tar holds its frames in the order of the table: the image, then its KEY.json, of a few blocks.
    The first row lies at the beginning of a tar.
    """
    same = (pl.col("tar") == pl.col("tar").shift()).fill_null(value=False)
    row = pl.col("offset") - (pl.col("offset") + _blocks(pl.col("size"))).shift() - 2 * TAR_BLOCK
    fits = (
        pl.when(same)
        .then((row >= TAR_BLOCK) & (row <= LARGEST_ROW) & (row % TAR_BLOCK == 0))
        .otherwise((pl.col("offset") == TAR_BLOCK) & pl.col("tar").is_first_distinct())
    )
    wrong = places.select((~fits | (pl.col("size") < 0)).arg_true()).to_series()
    return None if wrong.is_empty() else wrong[0]


def _check_keys(root: Path, places: pl.DataFrame) -> None:
    """Checks that frames have their own places: by the manifest's order, and by KEY.json in tars.

    The KEY.json of the first and the last frame of each tar are read; those between lie in the
    order of the table, see `_misplaced`. Tars that are missing or cut short are left to the check
    of files.

    Raises:
        InputError: another frame lies there.
    """
    manifest = root / MANIFEST
    if manifest.is_file() and not (
        read_table(manifest, pl.Schema({"path": pl.String}), COPY)["path"].equals(places["path"])
    ):
        raise InputError(
            f"{root / PLACES} and {manifest} do not belong together: they list other frames, or in "
            "another order",
            COPY,
        )
    ends = places.filter(pl.col("tar").is_first_distinct() | pl.col("tar").is_last_distinct())
    for path, tar, offset, size in ends.iter_rows():
        begin = offset + (size + TAR_BLOCK - 1) // TAR_BLOCK * TAR_BLOCK
        try:
            with (root / tar).open("rb") as file:
                file.seek(begin)
                header = tarfile.TarInfo.frombuf(file.read(TAR_BLOCK), "utf-8", "strict")
                row = json.loads(file.read(min(header.size, LARGEST_ROW)))
        except FileNotFoundError:
            continue
        except (tarfile.HeaderError, ValueError, RecursionError) as error:
            if (root / tar).stat().st_size < begin + 2 * TAR_BLOCK:
                continue
            raise InputError(
                f"{root / tar} does not hold the row of {path} behind its image", COPY
            ) from error
        if not isinstance(row, dict) or row.get("path") != path:
            raise InputError(
                f"{root / PLACES} and {root / tar} do not belong together: where {path} should "
                "lie, the tar holds another frame",
                COPY,
            )


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
