"""Folders that `fmsd extract` or `fmsd pack` wrote: their manifest and crop settings."""

from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from fmsd.data.manifest import Manifest, read_manifest
from fmsd.errors import InputError
from fmsd.json_records import Count, read_record
from fmsd.quoting import shell_override

EXTRACTED, PACKED = "extract.json", "pack.json"


class Crops(TypedDict):
    """The settings of `fmsd extract` that choose the frames."""

    frames: Count | None
    sampling: Literal["spread", "first"]


class Packed(TypedDict):
    """The record of `fmsd pack`."""

    crops: Crops | None


RECORDS = {EXTRACTED: Crops, PACKED: Packed}
"""The files that mark such a folder, and what they hold; either lies beside its manifest."""


def prepared_manifest(root: Path) -> Manifest | None:
    """The manifest in a folder that `fmsd extract` or `fmsd pack` wrote; None for other folders.

    Raises:
        InputError: such a folder has no manifest yet.
    """
    if not any((root / name).is_file() for name in RECORDS):
        return None
    path = root / "manifest.parquet"
    if not path.is_file():
        raise InputError(
            f"{root} holds crops without a manifest, of shards or an extraction that was "
            "interrupted",
            "when all are done, join them with fmsd index data=extracted "
            f"{shell_override('data.root', root)} {shell_override('out', path)}",
        )
    return read_manifest(path, root)


def crop_settings(root: Path) -> dict[str, Any] | None:
    """The settings with which `fmsd extract` made the crops in a folder; None if unknown.

    They are known for packed crops, too.

    Raises:
        InputError: the record of the settings is damaged.
    """
    for name, shape in RECORDS.items():
        if (root / name).is_file():
            record = read_record(root / name, shape, "copy it again, or make the folder anew")
            return record if name == EXTRACTED else record["crops"]
    return None
