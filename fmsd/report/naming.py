"""Names of the rows of a report: `fmsd, no mask`, `lora, rank 8`, `R2M of lora + fmsd`.

A name is what the user gave as `label=`, or is composed of what varies between the rows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmsd.names import LONGEST_LABEL
from fmsd.quoting import printable
from fmsd.redaction import redact_words

GROUPS = ("method", "wrapper", "backbone", "merger")
"""Groups whose choices make a name, in this order; one is left out where it does not vary."""

OTHER_GROUPS = frozenset(
    {"data", "loss", "optimizer", "schedule", "trainer", "protocol", "logger", "experiments"}
)
"""Groups whose choice stands in a name without that of the group."""

NAMELESS = frozenset({"seed", "label", "experts", "out", "base", "ceiling", "add", "to", "file"})
"""Keys that no name is made of: seeds are one row, and the experts of a merge have names."""

PATHS = frozenset({"data.root", "data.manifest", "backbone.weights", "method.mask.file"})
"""Keys of paths, which stand in a name by their last part, and only where nothing else differs."""

PATH = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|[a-z]+://")
"""How a path begins that a name shows the last part of, whatever its key."""

PHRASES: Mapping[str, str] = {
    "method.mask.bias=none": "no mask",
    "method.mask.bias=random": "random mask",
    "select=last": "last epoch",
    "select=oracle": "chosen on test data",
    "select=iid": "chosen on validation data",
    "head.normalise=feature": "normalised feature",
    "head.normalise=true": "normalised head",
}
"""Words for overrides, by the exact override."""

WORDS: Mapping[str, str] = {
    "trainer.max_epochs": "epochs",
    "trainer.limit_train_batches": "batches",
    "method.mask.bias": "mask by",
    "method.mask.fraction": "mask of",
    "data.left_out": "left out",
    "data.train": "trained on",
    "data.train_forgeries": "trained on",
    "data.domains": "forgeries",
    "data.batch_size": "batch",
    "optimizer.lr": "lr",
}
"""Words for keys, by the exact key; any other key is named by its last part."""

CHOICES: Mapping[str, str] = {
    "r2m": "R2M",
    "ties": "TIES",
    "dare": "DARE",
    "tsv": "TSV",
    "iso": "Iso",
    "cart": "CART",
    "average": "average",
    "task_arithmetic": "task arithmetic",
}
"""Names of mergers, by their choice; any other choice is its own name."""

MOST_EXPERTS = 4
"""Experts that the name of a merge lists, at most."""

LONGEST_VALUE = 40
"""Characters of a value in a name, at most."""


def composed_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each trained or merged run, composed of what varies between runs of its kind.

    Of a merge it is what follows the names of merger and experts, and may be empty.

    Args:
        records: content of each run's `run.json`.
    """
    overrides = [plain_overrides(record.get("overrides", ())) for record in records]
    merged = ["merged" in record for record in records]
    varying = varying_overrides(overrides, merged)
    every = {text for own in varying for text in own}
    chosen = [
        {group: group_choice(record, words, group) for group in GROUPS}
        for record, words in zip(records, overrides, strict=True)
    ]
    several = {
        (kind, group)
        for kind in set(merged)
        for group in GROUPS
        if len({own[group] for own, one in zip(chosen, merged, strict=True) if one == kind}) > 1
    }
    names, left_out = [], {*GROUPS, *NAMELESS, *PATHS}
    for own, choices, is_merge in zip(varying, chosen, merged, strict=True):
        shown = [text for text in own if override_key(text) not in left_out]
        phrases = _phrases(shown, every)
        parts = {group: choices[group] for group in GROUPS if (is_merge, group) in several}
        if is_merge:
            parts.pop("merger", None)
        elif any(override_key(text).startswith("method.") for text in shown) or not (
            any(parts.values()) or phrases
        ):
            parts = {"method": choices["method"]} | parts
        words = (*map(choice_name, parts.values()), *phrases)
        name = ", ".join(dict.fromkeys(filter(None, words)))
        names.append(name if name or is_merge else "run")
    return names


def merge_name(record: Mapping[str, Any], experts: Sequence[str]) -> str:
    """The name of a merge: its merger, and its experts as far as a name can list them.

    Args:
        experts: their names; empty where they are not known.
    """
    words = plain_overrides(record.get("overrides", ()))
    merger = choice_name(group_choice(record, words, "merger") or "merge")
    count = len(record["merged"])
    listed = [" ".join(printable(name).split()) for name in experts]
    if not listed or any(not name or "/" in name for name in listed):
        return f"{merger} of {count} experts"
    if len(listed) > MOST_EXPERTS:
        listed = [*listed[: MOST_EXPERTS - 1], f"{len(listed) - MOST_EXPERTS + 1} more"]
    return f"{merger} of {' + '.join(listed)}"


def group_choice(record: Mapping[str, Any], overrides: Sequence[str], group: str) -> str:
    """The choice of a run in a group, by its record or its overrides; empty without one."""
    choice = record.get("choices", {}).get(group)
    if choice is None:
        own = (text.partition("=")[2] for text in overrides if override_key(text) == group)
        choice = next(own, "")
    return " ".join(printable(str(choice)).split())


def choice_name(choice: str) -> str:
    """The name of a choice of a group."""
    return CHOICES.get(choice, choice)


def override_phrases(overrides: Iterable[str]) -> list[str]:
    """Overrides in words, without those that no name is made of."""
    shown = [text for text in overrides if override_key(text) not in NAMELESS]
    return _phrases(shown, shown)


def _phrases(shown: Sequence[str], every: Iterable[str]) -> list[str]:
    """Overrides in words.

    Args:
        every: the overrides of all rows: keys with equal last parts keep one part more.
    """
    last: dict[str, set[str]] = {}
    for key in map(override_key, every):
        last.setdefault(key.rpartition(".")[2], set()).add(key)
    return [
        phrase
        for text in shown
        if (phrase := _phrase(text, len(last[override_key(text).rpartition(".")[2]]) > 1))
    ]


def _phrase(override: str, ambiguous: bool) -> str:
    """An override in words: `rank 8`, `no mask`, the choice of a group."""
    if (phrase := PHRASES.get(override)) is not None:
        return phrase
    key, sign, value = override.partition("=")
    plain = override_key(override)
    if not sign:
        return f"without {plain.rpartition('.')[2]}" if key.startswith("~") else shown_value(key)
    if plain in (*GROUPS, *OTHER_GROUPS):
        return choice_name(shown_value(value))
    parts = plain.split(".")
    word = WORDS.get(plain) or " ".join(parts[-2:] if ambiguous else parts[-1:]).replace("_", " ")
    word = " ".join(printable(word).split())
    if value in ("null", "false", "False", "None"):
        return f"no {word}"
    if value in ("true", "True"):
        return word
    return f"{word} {shown_value(value, is_path=plain in PATHS)}".strip()


def shown_value(value: str, is_path: bool = False) -> str:
    """A value in a name: lists as `a and b`, of a path its last part."""
    text = value.strip()
    if text[:1] == "[" and text[-1:] == "]" and not {"[", "{"} & {*text[1:-1]}:
        return " and ".join(filter(None, map(shown_value, text[1:-1].split(","))))
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if is_path or PATH.match(text):
        text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    text = " ".join(printable(" ".join(text.split())).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def override_key(override: str) -> str:
    """The key of an override without signs."""
    return override.partition("=")[0].lstrip("+~")


def plain_overrides(overrides: Iterable[str]) -> list[str]:
    """Sorted overrides without seed and label; `+key=value` and `key=value` count as the same."""
    plain = (override.lstrip("+") for override in redact_words(list(overrides)))
    return sorted(text for text in plain if not text.startswith(("seed=", "label=")))


def varying_overrides(
    overrides: Sequence[Sequence[str]], merged: Sequence[bool]
) -> list[list[str]]:
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
        [part for part in run if part not in common[kind]]
        for run, kind in zip(overrides, merged, strict=True)
    ]


def distinct_names(names: Sequence[str], overrides: Sequence[Sequence[str]]) -> list[str]:
    """Names of different rows: equal ones get the settings that tell them apart, or a number.

    Args:
        names: the name of each row.
        overrides: the overrides of each row.
    """
    found = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        places = [place for place, other in enumerate(names) if other == name]
        common = set.intersection(*(set(overrides[place]) for place in places))
        for place in places:
            own = [text for text in overrides[place] if text not in common]
            more = [phrase for phrase in override_phrases(own) if phrase not in name.split(", ")]
            found[place] = shortened(", ".join((name, *more)))
    for name in {name for name in found if found.count(name) > 1}:
        places = [place for place, other in enumerate(found) if other == name]
        for number, place in enumerate(places, 1):
            found[place] = f"{name} ({number})"
    return found if len(set(found)) == len(found) else distinct_names(found, [[]] * len(found))


def shortened(name: str) -> str:
    """A name of limited length."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
