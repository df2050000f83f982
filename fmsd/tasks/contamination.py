"""The verb `fmsd doctor train=... test=...`: finds training frames among those of tests."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import polars as pl

from fmsd.atomic import atomic
from fmsd.checks import check_range
from fmsd.console import print_place, print_table
from fmsd.data.audit.contamination import (
    SIDES,
    Contamination,
    contamination_findings,
    find_contamination,
)
from fmsd.data.audit.display import show_findings
from fmsd.data.audit.findings import count_by_severity, format_counts
from fmsd.data.frame import SCHEMA
from fmsd.data.image_hashes import read_hashes
from fmsd.data.manifest import Manifest
from fmsd.data.processes import available_cores
from fmsd.data.selected_frames import list_frames
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.ownership import check_replaceable

SPLITS = {"train": ("train", "val"), "test": ("test",)}
"""The splits that are compared, by side."""

Source = Selection | Manifest
"""What a side is read from: data, or a manifest."""


def check_contamination(
    train: Mapping[str, Source], test: Mapping[str, Source], out: Path, workers: int | None = None
) -> bool:
    """Compares test frames with training frames; returns whether no file is in both.

    The frames are the train and val splits of `train`, and the test split of `test`, with all
    frames of every video. Findings are printed and written.

    Args:
        train, test: by the word of the command line that names each.
        out: where the report is written as JSON.
        workers: processes that read images; None for one per core, 0 for this one.

    Raises:
        InputError: arguments out of range, data without frames of these splits, or a file in the
            way of the report.
    """
    check_range("workers", workers, 0, null="one per core")
    if out.suffix != ".json":
        raise InputError(f"The report is a JSON file, not {out}", "give out=FILE.json")
    check_replaceable([out], out, _is_report, "fmsd doctor", "give another out=FILE.json")
    listed = {
        side: [_frames(side, word, source) for word, source in sources.items()]
        for side, sources in zip(SIDES, (train, test), strict=True)
    }
    processes = available_cores() if workers is None else workers
    frames = {
        side: pl.concat(_with_absolute_paths(each, processes) for each in manifests)
        for side, manifests in listed.items()
    }
    found = find_contamination(frames["train"], frames["test"], processes)
    findings = contamination_findings(found)
    severities = count_by_severity(findings)
    report = {
        **{side: list(sources) for side, sources in zip(SIDES, (train, test), strict=True)},
        "frames": {side: frames[side].height for side in SIDES},
        "flat": found.flat,
        **severities,
        "findings": [asdict(finding) | {"count": finding.count} for finding in findings],
        "datasets": found.datasets.to_dicts(),
        "videos": found.videos.to_dicts(),
    }
    with atomic(out) as partial:
        partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    _show_datasets(found)
    show_findings(", ".join(test), out.parent, findings)
    counts = format_counts(severities) if findings else "No test frame is a training frame"
    print_place(f"{counts}. Every pair of videos is listed in {out}", out)
    return not severities["fatal"]


def _frames(side: str, word: str, source: Source) -> Manifest:
    """The frames of one side of one word."""
    if isinstance(source, Manifest):
        manifest = source.validate(files=False)
    else:
        manifest = list_frames(source).validate(files=False)
        named = source.train if side == "train" else source.test
        manifest = manifest.where(dataset=named)
    chosen = manifest.where(split=SPLITS[side])
    if not len(chosen):
        raise InputError(
            f"{side}={word} has no frames of the split{'s'[: len(SPLITS[side]) - 1]} "
            f"{' and '.join(SPLITS[side])}",
            f"name other data as {side}=NAME",
        )
    return chosen


def _with_absolute_paths(manifest: Manifest, workers: int) -> pl.DataFrame:
    """The frames with their hashes; paths are those of the files, as roots may differ."""
    read = read_hashes(manifest, workers)
    return read.with_columns(path=pl.Series(manifest.files(), dtype=SCHEMA["path"]))


def _show_datasets(found: Contamination) -> None:
    """Prints the numbers of common frames and videos per pair of datasets."""
    header = ["training set", "test set", "equal files", "near-duplicates", "test frames", "videos"]
    rows = [
        [
            row["train"],
            row["test"],
            *(f"{row[name]:,}" for name in ("equal", "near", "frames")),
            f"{row['videos']:,} of {row['all_videos']:,}",
        ]
        for row in found.datasets.iter_rows(named=True)
    ]
    print_table(
        "Test frames that are training frames",
        header,
        rows,
        text_columns=("test set",),
        name="contamination",
        records=found.datasets.to_dicts(),
    )


def _is_report(path: Path) -> bool:
    """Whether a JSON file is a report of this verb."""
    return {"train", "test", "frames", "findings", "videos"} <= set(
        json.loads(path.read_text(encoding="utf-8"))
    )
