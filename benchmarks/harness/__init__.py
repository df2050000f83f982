"""Tools of the benchmarks: interleaved timing, a printed table, and JSON (`--json PATH`)."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from fmsd.atomic import atomic
from fmsd.console import print_table


class Row(TypedDict):
    """One measured figure, good where value <= goal; without a goal it is for information.

    Args:
        peer: name of the figure that it is measured against.
    """

    name: str
    value: float
    unit: str
    goal: float | None
    peer: str | None
    machine: str


def row(
    name: str, value: float, unit: str, goal: float | None = None, peer: str | None = None
) -> Row:
    """A figure of this machine."""
    return Row(
        name=name,
        value=value,
        unit=unit,
        goal=goal,
        peer=peer,
        machine=f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    )


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call, round by round.

    All are measured in turn, so that a drift of the machine's speed hits all alike.

    Args:
        clock: `time.process_time` for processor time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + rounds):
        for name, step in steps.items():
            start = clock()
            step()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, peer: str) -> float:
    """The median over the rounds of what `name` takes in units of `peer`."""
    return statistics.median(
        own / other for own, other in zip(seconds[name], seconds[peer], strict=True)
    )


def arguments(title: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser


def report(title: str, rows: list[Row], path: Path | None) -> None:
    """Prints and writes."""
    lines = [
        [
            line["name"],
            f"{line['value']:.3g}",
            line["unit"],
            "" if line["goal"] is None else f"{line['goal']:g}",
            line["peer"] or "",
        ]
        for line in rows
    ]
    header = ["figure", "value", "unit", "goal", "against"]
    print_table(title, header, lines, rows[0]["machine"], name="figures", records=[*rows])
    if path:
        write_json(path, rows)


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(title: str, measure: Callable[[], list[Row]]) -> None:
    """Measures, prints and writes; for a benchmark without arguments of its own."""
    options = arguments(title).parse_args()
    report(title, measure(), options.json)
