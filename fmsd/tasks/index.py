"""Indexing: scans a dataset once and writes its manifest."""

from pathlib import Path

from fmsd.console import print_place, print_table
from fmsd.data import pack
from fmsd.data.absent_videos import write_absent
from fmsd.data.audit.split_lists import compare_with_lists, show_comparisons
from fmsd.data.description import describe_datasets
from fmsd.data.entries import from_entries
from fmsd.data.extraction.without_crops import list_absent
from fmsd.data.frame import DIGEST_COLUMNS, SCHEMA, SPLITS
from fmsd.data.prepared_folder import EXTRACTED
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.ownership import check_replaceable
from fmsd.tables import read_parquet_schema


def index(data: Selection, out: Path) -> None:
    """Scans and validates a dataset and writes its manifest, for `data.manifest=FILE`.

    Its splits are compared with the official lists.

    Args:
        data: its root and source.
        out: FILE.parquet.

    Raises:
        InputError: the dataset cannot be used, or `out` is not named as a parquet file, is a file
            other than a manifest, or lies in a pack or beside other crops.
    """
    if out.suffix != ".parquet":
        raise InputError(f"A manifest is a parquet file, not {out}", "give out=FILE.parquet")
    if (out.parent / pack.MARK).is_file():
        raise InputError(
            f"{out.parent} holds a pack, which has a manifest of its own",
            "give another out=FILE.parquet",
        )
    if (out.parent / EXTRACTED).is_file() and data.root_path.resolve() != out.parent.resolve():
        raise InputError(
            f"{out.parent} holds crops, which have a manifest of their own",
            "give another out=FILE.parquet",
        )
    check_replaceable([out], out, _is_manifest, "fmsd index", "give another out=FILE.parquet")
    manifest = from_entries(data.source(data.root_path), data.root_path).validate()
    if (out.parent / EXTRACTED).is_file():
        write_absent(out.parent, list_absent(out.parent))
    manifest.write(out)
    datasets = describe_datasets(manifest)
    rows = [
        [
            name,
            str(part["frames"]),
            *(str(part["videos"][split]) for split in SPLITS),
            part["digest"][:12],
        ]
        for name, part in datasets.items()
    ]
    print_table(
        f"Manifest of {manifest.root}",
        ["dataset", "frames", *(f"{split} videos" for split in SPLITS), "digest"],
        rows,
        name="datasets",
        records=[
            {"dataset": name, "frames": part["frames"]}
            | {f"{split}_videos": part["videos"][split] for split in SPLITS}
            | {"digest": part["digest"]}
            for name, part in datasets.items()
        ],
    )
    show_comparisons(compare_with_lists(manifest, data.root_path))
    print_place(f"The manifest lies in {out}", out)


def _is_manifest(path: Path) -> bool:
    """Whether a file has exactly a manifest's columns: a run's predictions have others.

    Those of earlier versions lack the last ones.
    """
    columns = list(SCHEMA.items())
    shortest = len(DIGEST_COLUMNS)
    written = [dict(columns[:count]) for count in range(shortest, len(columns) + 1)]
    return read_parquet_schema(path) in written
