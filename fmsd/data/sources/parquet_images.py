"""Unpacking the images of parquet files into a folder, once: FOLDER/00000/0000000.jpg."""

import contextlib
import glob
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import polars as pl

from fmsd.console import track
from fmsd.data.loading.image import SUFFIXES
from fmsd.errors import InputError, reason
from fmsd.tables import read_parquet_rows

MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}
"""First bytes of an image, and the ending of its file."""

MARK = "unpacked.json"
"""The file that marks a folder of unpacked images, with the state of the files they are from."""

PARTIAL = ".unpacking"
"""The ending of a folder that is not complete."""

DAY = 86_400
"""Seconds."""

ROWS = 4096
"""Rows whose images are held in memory at a time."""


def unpack_images(files: Sequence[Path], rows: Sequence[int], column: str, folder: Path) -> None:
    """Writes the images of all files into a folder, which appears in one step.

    Nothing is done where the folder holds those of the same files.

    Args:
        rows: number of rows of each file.
        column: of the images.

    Raises:
        InputError: the folder holds something else, cannot be written, or a row has no image.
    """
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    if folder.exists():
        if _mark(folder) == [column, state]:
            return
        raise InputError(
            f"{folder} holds something else than the images of these {len(files)} parquet files",
            "choose another folder with data.source.into=FOLDER, or remove it",
        )
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        partial = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=PARTIAL, dir=folder.parent)
        )
        numbered = list(enumerate(zip(files, rows, strict=True)))
        for number, (file, height) in track(numbered, "Unpacking images", len(files), "files"):
            (partial / f"{number:05d}").mkdir()
            for start in range(0, height, ROWS):
                cells = read_parquet_rows(file, column, start, ROWS)
                for row, cell in enumerate(cells, start):
                    data, ending = _image(cell, f"Row {row + 1} of {file}")
                    (partial / f"{number:05d}" / f"{row:07d}{ending}").write_bytes(data)
        (partial / MARK).write_text(json.dumps([column, state]), encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except (OSError, pl.exceptions.PolarsError) as error:
        if _mark(folder) == [column, state]:  # another process was faster
            return
        raise InputError(
            f"The images cannot be unpacked into {folder} ({reason(error)})",
            "make room there, or choose another folder with data.source.into=FOLDER",
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _mark(folder: Path) -> object:
    """What the mark of a folder says; None where there is none, or it is damaged."""
    try:
        return json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left of the folder, if nothing was added for a day."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}-*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if max(path.stat().st_mtime for path in (left, *left.iterdir())) < time.time() - DAY:
                shutil.rmtree(left)


def _image(cell: object, where: str) -> tuple[bytes, str]:
    """The bytes of an image and the ending of its file.

    Raises:
        InputError: the row has no bytes, or those of no image that is read.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise InputError(
            f"{where} has no image inside", "fetch the files with the images embedded in them"
        )
    name = cell.get("path") if isinstance(cell, dict) else None
    ending = next((end for magic, end in MAGIC.items() if data.startswith(magic)), None)
    ending = ending or Path(cast(str, name or "")).suffix.lower()
    if ending not in SUFFIXES:
        raise InputError(f"{where} holds no image of a known kind", "correct it, or remove it")
    return data, ending
