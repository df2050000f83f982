"""Indexing: scans a dataset once and writes its manifest."""

from pathlib import Path

from fmsd.console import show
from fmsd.data import pack
from fmsd.data.manifest import MARKS, SCHEMA, SPLITS, collect, summary
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.ownership import check_replaceable
from fmsd.tables import read_parquet_schema


def index(data: DataModule, out: Path) -> None:
    """Scans the data's root and writes its manifest, for training with `data.manifest=FILE`.

    Raises:
        InputError: the dataset is not valid, `out` does not end in .parquet or is a file other than
            a manifest, or it lies in a pack or in a folder of other crops.
    """
    if out.suffix != ".parquet":
        raise InputError(f"A manifest is a parquet file, not {out}", "give out=FILE.parquet")
    if (out.parent / pack.MARK).is_file():
        raise InputError(
            f"{out.parent} holds a pack, which has a manifest of its own",
            "give another out=FILE.parquet",
        )
    if (out.parent / MARKS[0]).is_file() and data.place.resolve() != out.parent.resolve():
        raise InputError(
            f"{out.parent} holds crops, which have a manifest of their own",
            "give another out=FILE.parquet",
        )
    check_replaceable([out], out, _is_manifest, "fmsd index", "give another out=FILE.parquet")
    manifest = collect(data.source(data.place), data.place).validate()
    manifest.write(out)
    found = summary(manifest)
    rows = [
        [
            name,
            str(part["frames"]),
            *(str(part["videos"][split]) for split in SPLITS),
            part["digest"][:12],
        ]
        for name, part in found.items()
    ]
    show(
        f"Manifest of {manifest.root}",
        ["dataset", "frames", *(f"{split} videos" for split in SPLITS), "digest"],
        rows,
    )
    print(f"The manifest lies in {out}")


def _is_manifest(path: Path) -> bool:
    """Whether a file has exactly a manifest's columns: predictions and other tables differ."""
    return read_parquet_schema(path) == SCHEMA
