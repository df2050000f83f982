"""A line about a copy of a dataset, as far as its table tells what is wrong with it."""

from collections.abc import Mapping
from typing import Any

from fmsd.data.audit.copy import without_films
from fmsd.data.audit.table import table_findings
from fmsd.data.manifest import Manifest

SEVERITIES = ("fatal", "warning", "note")


def said(numbers: Mapping[str, int]) -> str:
    """How many findings of each severity there are, in words."""
    plural = {"fatal": "{} fatal", "warning": "{} warning{s}", "note": "{} note{s}"}
    parts = [
        plural[severity].format(count, s="" if count == 1 else "s")
        for severity, count in numbers.items()
        if count
    ]
    return ", ".join(parts) or "Nothing is wrong with this copy"


def summary(
    manifest: Manifest,
    name: str,
    expected: Mapping[str, Mapping[str, int]],
    names: str | None,
    frames: int | None,
    train_frames: int | None,
) -> str | None:
    """A line about what is wrong with the data as far as its table tells; None where all is well.

    Args:
        manifest: the rows of the datasets that are trained and tested on.
        name, expected, names, frames, train_frames: as `data` has them.
    """
    found = table_findings(without_films(manifest), name, expected, names, frames, train_frames)
    findings = [finding for finding in found if finding.severity != "note"]
    if not findings:
        return None
    shown = "; ".join(
        f"{finding.check}: {finding.examples[0]}{', ...' if finding.count > 1 else ''}"
        for finding in findings
    )
    numbers: dict[str, Any] = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in SEVERITIES
    }
    return f"Data: {said(numbers)} ({shown}); fmsd doctor data={name} tells more."
