"""The table of `fmsd roots`: where each dataset lies, what sets that, and whether it is there."""

from collections.abc import Container
from typing import Any

from fmsd.cli.file_of_roots import default_file, read_roots, roots_file
from fmsd.cli.roots import (
    Dataset,
    Root,
    datasets,
    find_root,
    is_absent,
    is_lost,
    nearest_dataset,
    variable,
)
from fmsd.cli.suites import suites
from fmsd.console import print_table
from fmsd.data.prepared_folder import EXTRACTED, PACKED
from fmsd.data.sources.deepfakebench_json import has_json

FOUND, EMPTY, MISSING, NOT_SET = "found", "empty", "missing", "not set"
"""The states of a root."""

UNKNOWN = "no such dataset"
"""The state of a line whose name neither fmsd nor an installed plugin has."""


def print_roots() -> bool:
    """Prints the table, and returns whether every line means a dataset, whose root is there.

    Raises:
        InputError: the file of roots cannot be used.
    """
    records = [describe_root(dataset) for dataset in datasets().values()]
    if (own := roots_file()) is not None:
        unknown = {name: place for name, place in read_roots(own).items() if name not in datasets()}
        records += [
            {
                "dataset": name, "root": place, "set_by": str(own),
                "state": _unknown_state(name), "holds": recognise(Root(place, "", name), None),
            }
            for name, place in unknown.items()
        ]  # fmt: skip
    file = own or default_file()
    print_table(
        "Roots of the datasets",
        ["dataset", "root", "set by", "state", "holds"],
        [["-" if value is None else value for value in record.values()] for record in records],
        f"A root is set by a line NAME: PATH in {file}, a variable like {variable('celebdf_v2')}, "
        "or data.root=PATH",
        ("root", "set by", "state", "holds"),
        name="roots",
        records=records,
    )
    print_suites({record["dataset"] for record in records if record["state"] == FOUND})
    sound = (FOUND, NOT_SET, UNKNOWN)
    return all(record["state"] in sound for record in records)


def print_suites(found: Container[str]) -> None:
    """Prints which suites are complete on this machine.

    Args:
        found: the datasets whose root is there.
    """
    records = [
        {
            "suite": name,
            "datasets": datasets,
            "missing": [dataset for dataset in datasets if dataset not in found],
        }
        for name, datasets in suites().items()
    ]
    print_table(
        "Suites on this machine",
        ["suite", "datasets with a root", "without"],
        [
            [
                str(record["suite"]),
                f"{len(record['datasets']) - len(record['missing'])} of {len(record['datasets'])}",
                ", ".join(record["missing"]) or "-",
            ]
            for record in records
        ],
        text_columns=("without",),
        name="suites",
        records=records,
    )


def describe_root(dataset: Dataset) -> dict[str, Any]:
    """The row of a dataset, whose keys are those of the document of `--json`.

    A shared folder without the dataset's JSON file is not its root.
    """
    file = dataset.file
    root = find_root(dataset.name, dataset.shared)
    if root is not None and root.key == dataset.shared and not is_absent(root.folder):
        holds = file is not None and root.folder is not None and has_json(root.folder, file)
        root = root if holds else None
    return {
        "dataset": dataset.name,
        "root": None if root is None else root.place,
        "set_by": None if root is None else root.origin,
        "state": _state(root),
        "holds": None if root is None else recognise(root, file),
    }


def recognise(root: Root, file: str | None) -> str | None:
    """What a root holds, as far as a few names of files show it; None if it is not there.

    At an address there can only be a pack.

    Args:
        file: the dataset's JSON file of DeepfakeBench.
    """
    folder = root.folder
    if is_absent(folder):
        return None
    if folder is None or (folder / PACKED).is_file():
        return "a pack"
    if (folder / EXTRACTED).is_file():
        return "extracted crops"
    if any((folder / name).is_file() for name in ("manifest.csv", "manifest.parquet")):
        return "a manifest"
    if file is not None and has_json(folder, file):
        return f"DeepfakeBench's {file}"
    return "files"


def _unknown_state(name: str) -> str:
    """The state of a line of an unknown dataset, with the dataset that it may mean."""
    meant = nearest_dataset(name)
    return UNKNOWN if meant is None else f"{UNKNOWN}: did you mean {meant}?"


def _state(root: Root | None) -> str:
    if root is None:
        return NOT_SET
    if is_lost(root):
        return MISSING
    return EMPTY if is_absent(root.folder) else FOUND
