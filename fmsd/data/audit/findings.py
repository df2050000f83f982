"""What an examination of a dataset's copy reports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fmsd.errors import InputError, reason

Severity = Literal["fatal", "warning", "note"]
"""How bad a finding is.

`fatal`: training stops, or its results would be wrong; `warning`: results may not mean what they
seem to; `note`: for information.
"""

CheckId = Literal[
    "refused",
    "source",
    "test_only",
    "absent_part",
    "absent_domain",
    "fewer_videos",
    "more_videos",
    "one_class",
    "fake_audio",
    "leak",
    "split_list",
    "short_videos",
    "missing_files",
    "misspelt_files",
    "empty_files",
    "unreadable_files",
    "small_images",
    "flat_images",
    "misnamed_files",
    "equal_files",
    "shortcut",
    "contamination",
]
"""The checks; `source` stands for every problem that a source reports."""

SEVERITIES: tuple[Severity, ...] = ("fatal", "warning", "note")

READ_AGAIN = "make it readable, or restore it from its source"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check that failed.

    Args:
        id: the check, for programs.
        check: the check in a few words, for readers.
        examples: every place where it failed.
        remedy: what to do about it.
    """

    id: CheckId
    check: str
    severity: Severity
    examples: list[str]
    remedy: str

    @property
    def count(self) -> int:
        """Number of places."""
        return len(self.examples)


def nonempty(*findings: Finding) -> list[Finding]:
    """The findings that have an example."""
    return [finding for finding in findings if finding.examples]


def refusal(error: Exception) -> Finding:
    """The finding for an error that would end a training before it begins."""
    if isinstance(error, InputError):
        return Finding("refused", "refused", "fatal", [error.message], error.remedy)
    return Finding("refused", "refused", "fatal", [reason(error)], READ_AGAIN)


def count_by_severity(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Number of findings of each severity, the gravest first."""
    listed = list(findings)
    return {
        severity: sum(finding.severity == severity for finding in listed) for severity in SEVERITIES
    }


def format_counts(counts: Mapping[Severity, int]) -> str:
    """Counts by severity as text: `1 fatal, 2 warnings`."""
    plural = {"fatal": "{} fatal", "warning": "{} warning{s}", "note": "{} note{s}"}
    parts = [
        plural[severity].format(count, s="" if count == 1 else "s")
        for severity, count in counts.items()
        if count
    ]
    return ", ".join(parts) or "Nothing is wrong with this copy"
