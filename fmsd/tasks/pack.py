"""Packing: a dataset's images as a few large tars."""

import re
from pathlib import Path

from fmsd.data import pack as packs
from fmsd.data.manifest import made
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.quoting import shell_override

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def pack(data: DataModule, out: Path, size: str | int) -> None:
    """Writes every frame below the data's root into tars, with the same manifest; training then reads the folder as `data.root=OUT`.

    Args:
        size: bytes of a tar, as a number or like 500M or 1G; the last frame may go beyond.

    Raises:
        InputError: the dataset is not fit to be used, or `out` cannot be written.
    """
    most = number(size)
    manifest = data.own.validate()
    tars = packs.write(manifest.table, manifest.files(), out, most, made(manifest.root))
    print(
        f"{out}: {len(manifest):,} frames in {tars} {'tar' if tars == 1 else 'tars'}; train with "
        f"{shell_override('data.root', out)}"
    )
    if elsewhere := [name for name in data.test_names if name not in manifest.table["dataset"]]:
        print(
            f"Not in it, because they have roots of their own: {', '.join(elsewhere)}; pack each "
            "with fmsd pack data=NAME out=FOLDER."
        )


def number(size: str | int) -> int:
    """Bytes from `500M` or `1G`, in powers of 1024.

    Raises:
        InputError: it is written otherwise.
    """
    match = re.fullmatch(r"([1-9]\d*)([KMGT]?)", str(size))
    if match is None:
        raise InputError(f"size={size} is not a size", "give bytes, or a number like 500M or 1G")
    return int(match[1]) * UNITS[match[2]]
