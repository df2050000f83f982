"""Labels of the rows of a report: which runs are seeds of one row, and what the row is called."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmsd.errors import InputError
from fmsd.names import check_label
from fmsd.quoting import printable
from fmsd.report.naming import (
    composed_names,
    distinct_names,
    merge_name,
    override_key,
    plain_overrides,
    shown_value,
    varying_overrides,
)

DETECTOR_WEIGHTS = "adapter.safetensors"
"""The file whose digest tells which run an expert of a merge is."""


UNTELLING_KEYS = frozenset(
    {"out", "device", "seed", "label", "weights", "scores", "detector", "format", "trust"}
)
"""The first parts of keys that tell no foreign runs apart, or whose value is in their name."""


@dataclass(frozen=True)
class RowName:
    """The name of a run's row.

    Args:
        label: what reports call it. Runs with equal labels are seeds of one row.
        setting: the overrides that vary between rows, as they were written.
        given: whether the label is that of `label=`.
    """

    label: str
    setting: str
    given: bool = False


def row_names(records: Sequence[Mapping[str, Any]]) -> list[RowName]:
    """The name of the row of each run.

    It is the `label` of the run; else that of its detector, if it was imported or scored elsewhere;
    else composed of what varies between runs. Runs without a label whose overrides differ in more
    than the seed have different names.

    Args:
        records: content of each run's `run.json`.

    Raises:
        InputError: a label that cannot be the name of a row.
    """
    settings = row_settings(records)
    composed = _names_of_kinds(records)
    rows: dict[tuple[str, bool], str] = {}
    overrides: dict[tuple[str, bool], Sequence[str]] = {}
    keys = []
    for record, setting, name in zip(records, settings, composed, strict=True):
        check_label(label := record.get("label"))
        key = (label, True) if label else (setting, False)
        keys.append(key)
        rows.setdefault(key, label or name)
        overrides.setdefault(key, [] if label else telling_overrides(record))
    names = dict(
        zip(rows, distinct_names(list(rows.values()), list(overrides.values())), strict=True)
    )
    names |= {key: key[0] for key in rows if key[1]}
    return [
        RowName(names[key], setting, key[1]) for key, setting in zip(keys, settings, strict=True)
    ]


def _names_of_kinds(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label or composed name of each run, before names of different rows are told apart."""
    names = [str(record.get("label") or "") for record in records]
    foreign = [place for place, record in enumerate(records) if is_foreign(record)]
    own = [place for place, record in enumerate(records) if not is_foreign(record)]
    for place in foreign:
        names[place] = names[place] or foreign_name(records[place])
    for place, name in zip(own, composed_names([records[place] for place in own]), strict=True):
        names[place] = names[place] or name
    known = {
        digest: name
        for record, name in zip(records, names, strict=True)
        if "merged" not in record and (digest := weights(record)) is not None
    }
    # a merge is younger than its experts, which have names before it gets one
    for place in sorted(own, key=lambda place: str(records[place].get("time", ""))):
        record = records[place]
        if "merged" not in record:
            continue
        if not record.get("label"):
            merge = merge_name(record, expert_names(record, known))
            names[place] = ", ".join(filter(None, (merge, names[place])))
        if (digest := weights(record)) is not None:
            known[digest] = names[place]
    return names


def weights(record: Mapping[str, Any]) -> str | None:
    """The digest of a run's weights; None where its record has none."""
    return (record.get("files") or {}).get(DETECTOR_WEIGHTS)


def expert_names(record: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """The names of the experts of a merge: of their rows, else those that the merge recorded.

    Args:
        record: content of its `run.json`.
        known: names by the digest of the weights.
    """
    experts = record.get("experts")
    if experts is None:  # merges of fmsd 0.1.0 have the folders of their experts alone
        return [str(name) for name in record["merged"]]
    return [known.get(expert["sha256"]) or str(expert["name"]) for expert in experts]


def is_foreign(record: Mapping[str, Any]) -> bool:
    """Whether a run was trained elsewhere: imported, or scored by another program."""
    return "imported" in record or "external" in record


def foreign_name(record: Mapping[str, Any]) -> str:
    """The name of a detector that was imported or scored elsewhere."""
    if (about := record.get("external")) is not None:
        return shown_value(str(about.get("detector") or about.get("file") or "scores"))
    about = record["imported"]
    return f"imported {' '.join(printable(about.get('name') or about['detector']).split())}"


def row_settings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The setting of each run: its varying overrides, else the name of its method or merger.

    Runs with equal settings are seeds of one row. That of an imported run is its detector.

    Args:
        records: content of each run's `run.json`.
    """
    foreign = iter(_foreign_settings([record for record in records if is_foreign(record)]))
    own = iter(_own_settings([record for record in records if not is_foreign(record)]))
    return [next(foreign if is_foreign(record) else own) for record in records]


def telling_overrides(record: Mapping[str, Any]) -> list[str]:
    """The overrides that tell a run from others; of a foreign one also the digest of its file."""
    overrides = plain_overrides(record.get("overrides", ()))
    if not is_foreign(record):
        return overrides
    digest = str((record.get("external") or record["imported"]).get("sha256") or "")[:8]
    own = [text for text in overrides if override_key(text).split(".")[0] not in UNTELLING_KEYS]
    return [*own, *([f"sha256={digest}"] if digest else [])]


def _foreign_settings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of runs that were trained elsewhere: name, digest of the file, overrides."""
    return [" ".join((foreign_name(record), *telling_overrides(record))) for record in records]


def _own_settings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of runs that were trained or merged."""
    overrides = [plain_overrides(record["overrides"]) for record in records]
    merged = ["merged" in record for record in records]
    varying = _joined(varying_overrides(overrides, merged))
    of_merges = {text for text, is_merge in zip(varying, merged, strict=True) if is_merge}
    of_trainings = {text for text, is_merge in zip(varying, merged, strict=True) if not is_merge}
    if (of_merges & of_trainings) - {""}:
        varying = _joined(varying_overrides(overrides, [False] * len(records)))
    settings = []
    for text, record in zip(varying, records, strict=True):
        choices = record.get("choices", {})
        settings.append(text or choices.get("method") or choices.get("merger") or "run")
    return settings


def _joined(overrides: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join(" ".join(own).split()) for own in overrides]


def find_label(text: str, labels: Iterable[str], settings: Iterable[str] = ()) -> str:
    """The label equal to a text, or else the only one that contains it.

    Args:
        labels: of all rows.
        settings: the overrides of each, by which a row is found where no label fits.

    Raises:
        InputError: no row fits, or several do.
    """
    every = list(labels)
    pairs = list(dict.fromkeys(zip(every, list(settings) or every, strict=True)))
    unique = list(dict.fromkeys(every))
    matches: list[str] = []
    for candidates in (
        (label for label, _ in pairs if label == text),
        (label for label, setting in pairs if setting == text),
        (label for label, _ in pairs if text in label),
        (label for label, setting in pairs if text in setting),
    ):
        if matches := list(dict.fromkeys(candidates)):
            break
    if len(matches) != 1:
        raise InputError(
            f"against={text} is {'several rows' if matches else 'no row'}",
            f"name one of {'; '.join(matches or unique)}",
        )
    return matches[0]
