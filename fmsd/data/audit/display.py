"""The tables of an examination on the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from fmsd.console import print_table
from fmsd.data.audit.findings import Finding

HEADERS = {"files": "video files", "paired": "with real video", "whole": "of a whole copy"}
"""Headers of columns of `count_videos` that differ from their names."""


def show_counts(root: Path, counts: pl.DataFrame) -> None:
    """Prints the videos of a copy, see `count_videos`; empty optional columns are left out."""
    table = counts.select(
        name
        for name in counts.columns
        if name not in HEADERS or counts[name].sum() or (name == "paired" and counts[name].count())
    )
    rows = [
        ["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in row]
        for row in table.rows()
    ]
    header = [HEADERS.get(name, name) for name in table.columns]
    print_table(
        f"Videos of {root}",
        header,
        rows,
        text_columns=("split", "domain"),
        name="videos",
        records=counts.to_dicts(),
    )


def show_findings(name: str, root: Path, findings: Sequence[Finding]) -> None:
    """Prints the findings with an example each; paths are relative to `root`."""
    rows = [
        [
            finding.check,
            finding.severity,
            f"{finding.count:,}",
            finding.examples[0].replace(f"{root}/", ""),
            finding.remedy,
        ]
        for finding in findings
    ]
    header = ["check", "severity", "count", "example", "remedy"]
    title = f"Findings in data={name}"
    print_table(
        title,
        header,
        rows,
        text_columns=("severity", "example", "remedy"),
        name="findings",
        records=[asdict(finding) | {"count": finding.count} for finding in findings],
    )
