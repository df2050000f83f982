"""One line about a copy of a dataset, from the checks that need only its table."""

from collections.abc import Mapping

from fmsd.data.audit.copy import without_films
from fmsd.data.audit.findings import count_by_severity, format_counts
from fmsd.data.audit.table import table_findings
from fmsd.data.manifest import Manifest


def table_summary(
    manifest: Manifest,
    name: str,
    expected: Mapping[str, Mapping[str, int]],
    names: str | None,
    frames: int | None,
    train_frames: int | None,
) -> str | None:
    """A line with the warnings about a table; None if there is none.

    Args:
        manifest: the rows of the datasets that are trained and tested on.
        name, expected, names, frames, train_frames: see `table_findings`.
    """
    checked = table_findings(without_films(manifest), name, expected, names, frames, train_frames)
    findings = [finding for finding in checked if finding.severity != "note"]
    if not findings:
        return None
    examples = "; ".join(
        f"{finding.check}: {finding.examples[0]}{', ...' if finding.count > 1 else ''}"
        for finding in findings
    )
    counts = format_counts(count_by_severity(findings))
    return f"Data: {counts} ({examples}); run fmsd doctor data={name} for details."
