"""Which numbers may stand in one column: those of one protocol stamp, unless the user says which facts may differ. Then they are marked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Any, Self

from fmsd.errors import InputError
from fmsd.report.rows import Row

ALL = "all"
"""Every fact may differ."""

MERGE_FACTS = ("selection", "train")
"""Facts in which a merge cannot agree with its experts, nor they with each other; they are marked where it stands beside them."""


@dataclass(frozen=True)
class ColumnNotes:
    """How cells of one column are told apart.

    Args:
        cells: letters by row label, dataset and level.
        notes: what each letter means, in words.
    """

    cells: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    notes: Sequence[tuple[str, str]] = ()

    def at(self, columns: Iterable[tuple[str, str]]) -> Self:
        """The marks of datasets at columns that are made of one.

        Args:
            columns: dataset and column.
        """
        found = set(columns)
        cells = {
            (row, column, level): letters
            for (row, own, level), letters in self.cells.items()
            for dataset, column in found
            if dataset == own
        }
        return replace(self, cells=cells)

    def of(self, row: str) -> str:
        """All letters of a row."""
        return join_letters(letters for (own, _, _), letters in self.cells.items() if own == row)


def compare_stamps(trials: Sequence[Row], differ: Sequence[str] = ()) -> ColumnNotes:
    """Compares the stamps of every column and marks those that differ in facts that may.

    Args:
        differ: facts that may differ within a column; `all` for every one.

    Raises:
        InputError: numbers of one column rest on different facts.
    """
    columns: dict[tuple[str, str], dict[str, tuple[Mapping[str, Any], list[Row]]]] = {}
    for trial in trials:
        facts = trial.facts()
        for dataset, level, stamp in (
            trial.results.select("dataset", "level", "stamp")
            .unique(maintain_order=True)
            .iter_rows()
        ):
            columns.setdefault((dataset, level), {}).setdefault(stamp, (facts[stamp], []))[
                1
            ].append(trial)
    check_differ(differ, columns)
    letters: dict[str, str] = {}
    cells: dict[tuple[str, str, str], list[str]] = {}
    for (dataset, level), found in columns.items():
        names = differing_facts([facts for facts, _ in found.values()])
        merges = any("merged" in trial.record for _, own in found.values() for trial in own)
        allowed = {*differ, *(MERGE_FACTS if merges else ())}
        if ALL not in differ and (kept := [name for name in names if name not in allowed]):
            (facts, (one, *_)), *others = found.values()
            other_facts, (other, *_) = next(
                other
                for other in others
                if any(
                    format_fact(other[0].get(name)) != format_fact(facts.get(name)) for name in kept
                )
            )
            own = [
                name
                for name in kept
                if format_fact(other_facts.get(name)) != format_fact(facts.get(name))
            ]
            what = "; ".join(
                f"{name}: {shorten_fact(facts.get(name))} and {shorten_fact(other_facts.get(name))}"
                for name in own
            )
            raise InputError(
                f"{one.home(dataset)} and {other.home(dataset)} were not tested alike on "
                f"{dataset} at {level} level ({what})",
                f"leave one out, or set differ='[{','.join(sorted({*differ, *kept}))}]' to put "
                "them into one column with marks",
            )
        for facts, own in found.values() if names else ():
            meaning = ", ".join(f"{name} {shorten_fact(facts.get(name), 160)}" for name in names)
            letter = letters.setdefault(meaning, _letter(len(letters)))
            for trial in own:
                held = cells.setdefault((trial.label, dataset, level), [])
                if letter not in held:
                    held.append(letter)
    return ColumnNotes(
        {place: ",".join(sorted(held)) for place, held in cells.items()},
        [(letter, meaning) for meaning, letter in letters.items()],
    )


def join_letters(marks: Iterable[str]) -> str:
    """The letters of several marks as one, each once."""
    return ",".join(sorted({letter for mark in marks for letter in mark.split(",") if letter}))


def differing_facts(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the facts that are not the same in all."""
    names = dict.fromkeys(name for one in facts for name in one)
    return [name for name in names if len({format_fact(one.get(name)) for one in facts}) > 1]


def check_differ(
    differ: Sequence[str],
    columns: Mapping[Any, Mapping[str, tuple[Mapping[str, Any], list[Row]]]],
) -> None:
    """Refuses words of `differ=` that name no fact.

    Raises:
        InputError: there is such a word.
    """
    known = sorted(
        {name for found in columns.values() for facts, _ in found.values() for name in facts}
        - {"dataset", "level"}
    )
    if unknown := [name for name in differ if name not in (*known, ALL)]:
        raise InputError(
            f"differ names {unknown[0]!r}, which is no fact of a protocol",
            f"choose among {', '.join(known)}, {ALL}",
        )


def format_fact(value: Any) -> str:
    """A fact as text: JSON, but words as they are."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def shorten_fact(value: Any, most: int = 60) -> str:
    """A fact as text, cut off where it is long."""
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(digest, str) and len(digest) >= 12 for digest in value.values())
    ):
        text = ", ".join(f"{name} {digest[:12]}" for name, digest in value.items())
    else:
        text = format_fact(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _letter(place: int) -> str:
    """A, b, ... z, aa, ab, ..., small."""
    return (
        ascii_lowercase[place % 26]
        if place < 26
        else _letter(place // 26 - 1) + ascii_lowercase[place % 26]
    )
