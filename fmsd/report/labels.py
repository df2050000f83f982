"""Labels of the rows of a report: the overrides that vary between its runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmsd.errors import InputError
from fmsd.redaction import redact_words


def row_labels(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label of each run: its varying overrides, else the name of its method or merger.

    That of an imported run is the name of its detector.

    Args:
        records: content of each run's `run.json`.
    """
    names = imported_names([record for record in records if "imported" in record])
    others = iter(_labels_of_own([record for record in records if "imported" not in record]))
    imported = iter(names)
    return [next(imported if "imported" in record else others) for record in records]


def imported_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels of imported runs: the name given to them, else that of their detector.

    Digests tell two files of one name apart, and settings of the backbone two runs of one file.

    Args:
        records: content of each run's `run.json`.
    """
    files = [record["imported"] for record in records]
    names = [f"imported {file.get('name') or file['detector']}" for file in files]
    digests = {name: set[str]() for name in names}
    for name, file in zip(names, files, strict=True):
        digests[name].add(file["sha256"])
    labels = [
        f"{name} {file['sha256'][:8]}" if len(digests[name]) > 1 else name
        for name, file in zip(names, files, strict=True)
    ]
    settings = [
        {word for word in _normalised(record["overrides"]) if word.startswith("backbone")}
        for record in records
    ]
    common = {
        label: set.intersection(
            *(own for other, own in zip(labels, settings, strict=True) if other == label)
        )
        for label in labels
    }
    return [
        " ".join([label, *sorted(own - common[label])])
        for label, own in zip(labels, settings, strict=True)
    ]


def _labels_of_own(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels of runs that were trained or merged."""
    overrides = [_normalised(record["overrides"]) for record in records]
    merged = ["merged" in record for record in records]
    varying = varying_overrides(overrides, merged)
    of_merges = {text for text, is_merge in zip(varying, merged, strict=True) if is_merge}
    of_trainings = {text for text, is_merge in zip(varying, merged, strict=True) if not is_merge}
    if (of_merges & of_trainings) - {""}:
        varying = varying_overrides(overrides, [False] * len(records))
    labels = []
    for text, record in zip(varying, records, strict=True):
        choices = record.get("choices", {})
        labels.append(text or choices.get("method") or choices.get("merger") or "run")
    return labels


def varying_overrides(overrides: Sequence[Sequence[str]], merged: Sequence[bool]) -> list[str]:
    """The overrides of each run that vary between runs of its kind (trained or merged).

    A run that is the only one of its kind is compared with all runs.
    """
    common = {}
    for kind in set(merged):
        same_kind = {
            tuple(run) for run, is_merge in zip(overrides, merged, strict=True) if is_merge == kind
        }
        compared = same_kind if len(same_kind) > 1 else overrides
        common[kind] = set.intersection(*map(set, compared))
    return [
        " ".join(" ".join(part for part in run if part not in common[kind]).split())
        for run, kind in zip(overrides, merged, strict=True)
    ]


def find_label(text: str, labels: Iterable[str]) -> str:
    """The label equal to a text, or else the only one that contains it.

    Raises:
        InputError: no label contains the text, or several do.
    """
    unique = list(dict.fromkeys(labels))
    matches = [text] if text in unique else [label for label in unique if text in label]
    if len(matches) != 1:
        raise InputError(
            f"against={text} is {'several rows' if matches else 'no row'}",
            f"name one of {'; '.join(matches or unique)}",
        )
    return matches[0]


def _normalised(overrides: Sequence[str]) -> list[str]:
    """Sorted overrides without the seed; `+key=value` and `key=value` count as the same."""
    plain = (override.lstrip("+") for override in redact_words(overrides))
    return sorted(override for override in plain if not override.startswith("seed="))
