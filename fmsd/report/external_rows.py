"""Rows of external detectors: the runs of one detector on different datasets are one row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fmsd.runs.folder import Run


def join_external(runs: Sequence[Run], records: Mapping[Run, Mapping[str, Any]]) -> list[list[Run]]:
    """The runs, those of one external detector on different datasets together, the newest first.

    Scores that were imported from several files are of one detector if they have one label, and one
    scale, polarity and level.
    """
    joined: dict[str, list[tuple[list[Run], set[str]]]] = {}
    for run in sorted(runs, key=lambda one: str(records[one].get("time")), reverse=True):
        record = records[run]
        external, label = record.get("external"), record.get("label")
        if external is None:
            joined[f"run {run.folder}"] = [([run], set())]
            continue
        facts = {name: value for name, value in external.items() if name != "levels"}
        words = sorted(word for word in record["overrides"] if word.lstrip("+").startswith("args"))
        if external["kind"] == "scores" and label is not None:  # files differ by dataset
            facts = {name: external.get(name) for name in ("kind", "scale", "higher", "levels")}
        same = json.dumps([label, facts, words], sort_keys=True)
        datasets = {*((record.get("manifests") or {}).get("test") or {})}
        rows = joined.setdefault(same, [])
        fitting = next((row for row in rows if row[1].isdisjoint(datasets)), None)
        if fitting is None:
            rows.append(([run], datasets))
        else:
            fitting[0].append(run)
            fitting[1].update(datasets)
    groups = [own for rows in joined.values() for own, _ in rows]
    places = {run: place for place, run in enumerate(runs)}
    return sorted(groups, key=lambda own: min(places[run] for run in own))
