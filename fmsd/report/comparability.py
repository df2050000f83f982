"""Comparability: a column holds results of one protocol stamp, or marks those that differ.

Which facts of the protocol may differ within a column is the user's choice.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Any, Self

from fmsd.errors import InputError
from fmsd.report.rows import Row
from fmsd.report.stamped import PIXELS, stamped_facts

ALL = "all"
"""Value of `differ` by which every fact may differ."""

MERGE_FACTS = ("selection", "train", "overlap")
"""Facts that may always differ beside a merge: it cannot share them with its experts.

Its training frames are those of all experts, so more test frames can be among them.
"""

IMPORT_FACTS = (*MERGE_FACTS, "augment", "left_out", "train_frames", "size")
"""Facts that may always differ beside an imported or external detector: its training is unknown.

Its input has the size that it was published with.
"""

TRAINING_FACTS = ("selection", "augment", "train", "left_out", "train_frames")
"""Facts of the training, see `fmsd.engine.stamp.training_facts`; all others are of the test."""

DIGEST = re.compile(r"[0-9a-f]{40,}")
"""A digest within a fact."""

COVERAGE = "coverage"
"""The fact of results in which not every frame has a score; complete ones agree with any policy."""

StampFacts = Mapping[str, Any]

StampGroups = Mapping[str, tuple[StampFacts, list[Row]]]
"""The facts behind each stamp of a column, and the rows with this stamp."""


@dataclass(frozen=True)
class ColumnNotes:
    """Letters that mark the cells of a column which differ in their protocol.

    Args:
        cells: letters by row label, dataset and level.
        notes: each letter and the facts it stands for.
    """

    cells: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    notes: Sequence[tuple[str, str]] = ()

    def for_columns(self, columns: Iterable[tuple[str, str]]) -> Self:
        """The same notes for columns that are derived from datasets.

        Args:
            columns: dataset and derived column.
        """
        pairs = set(columns)
        cells = {
            (label, column, level): letters
            for (label, source, level), letters in self.cells.items()
            for dataset, column in pairs
            if dataset == source
        }
        return replace(self, cells=cells)

    def letters_of(self, label: str) -> str:
        """All letters of a row."""
        return join_letters(
            letters for (other, _, _), letters in self.cells.items() if other == label
        )


def compare_stamps(rows: Sequence[Row], differ: Sequence[str] = ()) -> ColumnNotes:
    """Compares the stamps within every column and marks permitted differences.

    Args:
        differ: facts that may differ within a column; `all` for every fact.

    Raises:
        InputError: results of one column differ in other facts, or `differ` names no fact.
    """
    columns: dict[tuple[str, str], dict[str, tuple[StampFacts, list[Row]]]] = {}
    for row in rows:
        for dataset, level, stamp, facts in stamped_facts(row.results, row.facts()):
            groups = columns.setdefault((dataset, level), {})
            groups.setdefault(f"{stamp} {facts.get(PIXELS)}", (facts, []))[1].append(row)
    check_differ(differ, columns.values())
    letters: dict[str, str] = {}
    cells: dict[tuple[str, str, str], set[str]] = {}
    for (dataset, level), groups in columns.items():
        names = differing_facts([facts for facts, _ in groups.values()])
        if any(PIXELS not in facts for facts, _ in groups.values()):
            names = [name for name in names if name != PIXELS]
        allowed = {*differ, *own_facts([row for _, group in groups.values() for row in group])}
        forbidden = [] if ALL in differ else [name for name in names if name not in allowed]
        policies = {facts[COVERAGE] for facts, _ in groups.values() if COVERAGE in facts}
        if len(policies) < 2:
            forbidden = [name for name in forbidden if name != COVERAGE]
        if forbidden:
            raise _incomparable(dataset, level, groups, forbidden, differ)
        names = [name for name in names if name != COVERAGE]  # remarks have it
        every = [facts for facts, _ in groups.values()]
        for facts, group in groups.values() if names else ():
            meaning = describe_facts(names, facts, every)
            letter = letters.setdefault(meaning, _letter(len(letters)))
            for row in group:
                cells.setdefault((row.label, dataset, level), set()).add(letter)
    for row in rows:
        for dataset, level in (
            row.results.select("dataset", "level").unique(maintain_order=True).rows()
        ):
            for remark in row.remarks(dataset):
                letter = letters.setdefault(remark, _letter(len(letters)))
                cells.setdefault((row.label, dataset, level), set()).add(letter)
    return ColumnNotes(
        {cell: ",".join(sorted(marks)) for cell, marks in cells.items()},
        [(letter, meaning) for meaning, letter in letters.items()],
    )


def describe_facts(names: Sequence[str], facts: StampFacts, every: Sequence[StampFacts]) -> str:
    """Facts of a protocol for a note; of an unknown training in three words.

    Args:
        names: of the facts that differ within a column.
        every: the facts of all results of the column.
    """
    parts = []
    if "unknown" in facts.get("train", {}):
        parts = ["training not known"]
        names = [name for name in names if name not in TRAINING_FACTS]
    for name in names:
        value = differing_part(name, facts, every)
        parts.append(f"{name} {'not known' if value is None else shorten_fact(value, 160)}")
    return ", ".join(parts)


def own_facts(rows: Sequence[Row]) -> tuple[str, ...]:
    """The facts in which a merge, or a detector of unknown training among the rows, may differ."""
    if any({"imported", "external"} & row.record.keys() for row in rows):
        return IMPORT_FACTS
    return MERGE_FACTS if any("merged" in row.record for row in rows) else ()


def _incomparable(
    dataset: str, level: str, groups: StampGroups, forbidden: Sequence[str], differ: Sequence[str]
) -> InputError:
    """The error for a column whose stamps differ in forbidden facts.

    Each fact is shown by the first results that differ in it from the first of the column.
    """
    if list(forbidden) == [COVERAGE]:  # complete results stand beside any policy
        groups = {key: group for key, group in groups.items() if COVERAGE in group[0]}
    (facts, (row, *_)), *others = groups.values()
    every = [one for one, _ in groups.values()]
    found: dict[int, list[str]] = {}
    for name in forbidden:
        own = format_fact(facts.get(name))
        place = next(
            i for i, (other, _) in enumerate(others) if format_fact(other.get(name)) != own
        )
        found.setdefault(place, []).append(name)
    folders, phrases = [], []
    for place, names in sorted(found.items()):
        other, (other_row, *_) = others[place]
        folders.append(other_row.folder_of(dataset))
        phrases.append(_differences(names, facts, other, every))
    more = "".join(
        f"; {folder} differs from the first {phrase}"
        for folder, phrase in zip(folders[1:], phrases[1:], strict=True)
    )
    return InputError(
        f"The results of {row.folder_of(dataset)} and {folders[0]} on {dataset} at {level} level "
        f"cannot share a column: they differ {phrases[0]}{more}",
        f"leave one out, or set differ='[{','.join(sorted({*differ, *forbidden}))}]' to put them "
        "into one column with marks",
    )


def _differences(
    names: Sequence[str], facts: StampFacts, other: StampFacts, every: Sequence[StampFacts]
) -> str:
    """The values of two results, those of the training before those of the test."""
    parts = []
    for where, training in (("training", True), ("test", False)):
        values = [
            f"{name}: "
            + " and ".join(shorten_fact(differing_part(name, one, every)) for one in (facts, other))
            for name in names
            if (name in TRAINING_FACTS) == training
        ]
        if values:
            parts.append(f"in the {where} ({'; '.join(values)})")
    return " and ".join(parts)


def differing_part(name: str, facts: StampFacts, every: Sequence[StampFacts]) -> Any:
    """A fact, of one with the same keys in all protocols only those whose values differ."""
    own = facts.get(name)
    if not isinstance(own, dict):
        return own
    alike = [
        value
        for one in every
        if isinstance(value := one.get(name), dict) and value.keys() == own.keys()
    ]
    if len(alike) < len(every):
        return own
    return {key: own[key] for key in own if any(value[key] != own[key] for value in alike)}


def join_letters(marks: Iterable[str]) -> str:
    """The union of letters separated by commas, sorted."""
    return ",".join(sorted({letter for mark in marks for letter in mark.split(",") if letter}))


def differing_facts(facts: Sequence[StampFacts]) -> list[str]:
    """The names of the facts that are not the same in all protocols."""
    names = dict.fromkeys(name for one in facts for name in one)
    return [name for name in names if len({format_fact(one.get(name)) for one in facts}) > 1]


def check_differ(differ: Sequence[str], columns: Iterable[StampGroups]) -> None:
    """Checks that every name in `differ` is a fact of a protocol."""
    known = sorted(
        {name for groups in columns for facts, _ in groups.values() for name in facts}
        - {"dataset", "level"}
    )
    if unknown := [name for name in differ if name not in (*known, ALL)]:
        raise InputError(
            f"differ names {unknown[0]!r}, which is no fact of a protocol",
            f"choose among {', '.join(known)}, {ALL}",
        )


def format_fact(value: Any) -> str:
    """A fact as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def shorten_fact(value: Any, max_length: int = 60) -> str:
    """A fact as text of limited length; digests are cut to twelve digits.

    Unknown training data have an empty one.
    """
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(text, str) and (not text or len(text) >= 12) for text in value.values())
    ):
        text = ", ".join(f"{name} {digest[:12]}".rstrip() for name, digest in value.items())
    else:
        text = DIGEST.sub(lambda digest: digest[0][:12], format_fact(value))
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def _letter(index: int) -> str:
    """The letters a, b, ... z, aa, ab, ... by index."""
    last = ascii_lowercase[index % 26]
    return last if index < 26 else _letter(index // 26 - 1) + last
