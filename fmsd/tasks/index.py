"""Indexing: scan a dataset once and keep its manifest."""

from pathlib import Path

from fmsd.data.manifest import SPLITS, collect, read, summary
from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.report.console import show


def index(data: DataModule, out: Path) -> None:
    """Scans the data's root, checks what it finds and writes the manifest; training then reads it with `data.manifest=FILE`.

    Raises:
        InputError: the dataset is not fit to be used, or `out` is not a parquet file's name.
    """
    if out.suffix != ".parquet":
        raise InputError(f"A manifest is a parquet file, not {out}", "give out=FILE.parquet")
    if out.exists():
        read(out, Path("/"))  # refuses to replace anything but a manifest
    manifest = collect(data.source(data.place), data.place).validate()
    manifest.write(out)
    found = summary(manifest)
    rows = [[name, str(part["frames"]), *(str(part["videos"][split]) for split in SPLITS), part["digest"][:12]] for name, part in found.items()]
    show(f"Manifest of {manifest.root}", ["dataset", "frames", *(f"{split} videos" for split in SPLITS), "digest"], rows)
    print(f"The manifest lies in {out}")
