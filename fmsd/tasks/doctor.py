"""The verb `fmsd doctor`: examines a copy of a dataset, and the shortcuts that it offers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import atomic
from fmsd.checks import check_range
from fmsd.console import print_place, print_table
from fmsd.data.audit.copy import ScannedCopy, scan_copy, select_datasets, without_films
from fmsd.data.audit.display import show_counts, show_findings
from fmsd.data.audit.files import file_findings, inspect_files, video_properties
from fmsd.data.audit.findings import (
    SEVERITIES,
    Finding,
    count_by_severity,
    format_counts,
    nonempty,
    refusal,
)
from fmsd.data.audit.split_lists import compare_with_lists, list_findings
from fmsd.data.audit.table import (
    count_videos,
    short_findings,
    table_findings,
    validation_findings,
)
from fmsd.data.processes import available_cores
from fmsd.data.selected_frames import read_stored_manifest
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.metrics.shortcuts import CATEGORICAL, NUMERIC, STRONG, Shortcut, find_shortcuts
from fmsd.ownership import check_replaceable


def doctor(
    data: Selection,
    out: Path,
    frames: int | None = 32,
    limit: int | None = 20000,
    workers: int | None = None,
    cached: bool = True,
) -> bool:
    """Examines a copy, prints and writes the findings, and returns whether the copy can be used.

    Where the data names datasets to train or test on, those are examined, otherwise all that the
    root holds.

    Args:
        out: where the report is written as JSON.
        frames: videos with fewer frames are reported; None for none.
        limit: the most files to open; all others are only looked for. None opens all.
        workers: processes that open files; None for one per core, 0 for this one.
        cached: take the properties of files that have not changed since an earlier call from the
            cache.

    Raises:
        InputError: arguments out of range, or a file in the way of the report.
    """
    _check_arguments(out, frames, limit, workers)
    scanned = _scan(data)
    manifest, findings = scanned.manifest, scanned.findings
    counts = pl.DataFrame()
    shortcuts: list[Shortcut] = []
    files = pl.DataFrame({"opened": pl.Series([], dtype=pl.Boolean)})
    if manifest is not None:
        name = data.name
        # a scan that ended early cannot be compared with a whole copy
        complete = all(finding.id != "refused" for finding in findings)
        expected = (data.expected if complete else None) or {}
        counts = count_videos(manifest, name, expected)
        findings = [
            *findings,
            *validation_findings(manifest),
            *(list_findings(compare_with_lists(manifest, data.root_path)) if complete else []),
            *table_findings(
                manifest, name, expected, data.names, frames, frames, scanned.missing_domains
            ),
        ]
        processes = available_cores() if workers is None else workers
        files = inspect_files(manifest, limit, processes, cached)
        findings += file_findings(files, manifest.root)
        videos = video_properties(files, tuple(NUMERIC), CATEGORICAL)
        if frames is not None:
            length = pl.when(pl.col("listed") == 0).then(pl.col("frames"))
            findings += short_findings(videos.select("dataset", "video", frames=length), frames)
        shortcuts = find_shortcuts(videos.filter(pl.col("label").is_in([0, 1])))
    findings = sorted(
        [*findings, *_shortcut_findings(shortcuts)],
        key=lambda finding: SEVERITIES.index(finding.severity),
    )
    severities = count_by_severity(findings)
    opened = int(files["opened"].sum())
    report = {
        "data": data.name,
        "root": str(data.root_path),
        "files": files.height,
        "opened": opened,
        **severities,
        "counts": counts.to_dicts(),
        "findings": [asdict(finding) | {"count": finding.count} for finding in findings],
        "shortcuts": [_shortcut_record(shortcut) for shortcut in shortcuts],
    }
    with atomic(out) as partial:
        partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    show_counts(data.root_path, counts)
    _show_shortcuts(shortcuts)
    show_findings(data.name, data.root_path, findings)
    if opened == limit:
        print(
            f"Of {files.height:,} files {opened:,} were opened, evenly spread; limit=null opens "
            "all."
        )
    print_place(f"{format_counts(severities)}. Every place is listed in {out}", out)
    return not severities["fatal"]


def _check_arguments(out: Path, frames: int | None, limit: int | None, workers: int | None) -> None:
    check_range("frames", frames, 1, null="no limit")
    check_range("limit", limit, 1, null="no limit")
    check_range("workers", workers, 0, null="one per core")
    if out.suffix != ".json":
        raise InputError(f"The report is a JSON file, not {out}", "give out=FILE.json")
    check_replaceable([out], out, _is_report, "fmsd doctor", "give another out=FILE.json")


def _is_report(path: Path) -> bool:
    """Whether a JSON file is a report of this verb."""
    return {"data", "root", "opened", "findings", "shortcuts"} <= set(
        json.loads(path.read_text(encoding="utf-8"))
    )


def _scan(data: Selection) -> ScannedCopy:
    """The files of the datasets that the data names, and what the source reports about them.

    Raises:
        InputError: the data has no root.
    """
    root = data.root_path
    try:
        listed = read_stored_manifest(data)
        if listed is not None:
            listed.files()
    except (InputError, OSError, pl.exceptions.PolarsError) as error:
        return ScannedCopy(None, [refusal(error)])
    scanned = (
        scan_copy(data.source, root)
        if listed is None
        else ScannedCopy(without_films(listed), findings=[])
    )
    if scanned.manifest is None:
        return scanned
    place, key = (root, "data.root") if data.manifest is None else (data.manifest, "data.manifest")
    chosen, more = select_datasets(scanned.manifest, data.train, data.test, data.others, place, key)
    return replace(scanned, manifest=chosen, findings=[*scanned.findings, *more])


def _shortcut_record(shortcut: Shortcut) -> dict[str, Any]:
    """A shortcut as the report stores it, where the direction has the key `says`."""
    record = asdict(shortcut)
    return {"says" if key == "direction" else key: value for key, value in record.items()}


def _shortcut_findings(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    """Shortcuts as findings: strong ones are warnings, weak ones notes."""
    remedy = "make both classes alike in it, or report it with every result"
    strong: list[str] = []
    weak: list[str] = []
    for shortcut in shortcuts:
        place = f"{shortcut.dataset} {shortcut.split}"
        examples = strong if shortcut.auc >= STRONG else weak
        examples.append(f"{place}: {shortcut.direction} (AUC {shortcut.auc:.3f})")
    return nonempty(
        Finding("shortcut", "strong shortcuts", "warning", strong, remedy),
        Finding("shortcut", "shortcuts", "note", weak, remedy),
    )


def _show_shortcuts(shortcuts: Sequence[Shortcut]) -> None:
    """Prints the properties that predict the label."""
    rows = [
        [
            each.dataset,
            each.split,
            each.property,
            f"{each.auc:.3f}",
            str(each.videos),
            each.direction,
        ]
        for each in shortcuts
    ]
    header = ["dataset", "split", "property", "AUC", "videos", "direction"]
    print_table(
        "Single properties that predict the label",
        header,
        rows,
        text_columns=("split", "property", "direction"),
        name="shortcuts",
        records=[asdict(each) for each in shortcuts],
    )
