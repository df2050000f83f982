"""Folders that `fmsd extract` or `fmsd pack` wrote: their manifest and crop settings."""

import json
from pathlib import Path
from typing import Any

from fmsd.data.manifest import Manifest, read_manifest
from fmsd.errors import InputError, reason
from fmsd.quoting import shell_override

EXTRACTED, PACKED = "extract.json", "pack.json"

RECORDS = (EXTRACTED, PACKED)
"""The files that mark such a folder; either lies beside its manifest."""


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
    for name in RECORDS:
        if (root / name).is_file():
            try:
                record = json.loads((root / name).read_text(encoding="utf-8"))
                crops = record if name == EXTRACTED else record["crops"]
                if crops is not None and not (
                    type(crops["frames"]) in (int, type(None))
                    and crops["sampling"] in ("spread", "first")
                ):
                    raise ValueError(f"frames={crops['frames']}, sampling={crops['sampling']}")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{root / name} is damaged ({reason(error)})",
                    "copy it again, or make the folder anew",
                ) from error
            return crops
    return None
