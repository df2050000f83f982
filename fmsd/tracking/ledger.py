"""The ledger of a run: what each logger has received, in `published.json`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from typing_extensions import TypedDict

from fmsd.json_records import read_record
from fmsd.runs.folder import PUBLISHED, Run, write_text
from fmsd.tracking.values import Curves, robustness_values, stamps_by_dataset

log = logging.getLogger(__name__)


class Published(TypedDict):
    """What a logger has received.

    Args:
        stamps: of results, by dataset and level.
        curves: the severities of every robustness curve.
    """

    stamps: dict[str, dict[str, str]]
    curves: dict[str, list[int]]


def read_published(run: Run) -> dict[str, Published]:
    """Reads what every logger of a run has received completely, by the logger's name.

    Raises:
        InputError: the file is damaged.
    """
    path = run.folder / PUBLISHED
    remedy = "put it back, or remove it: the loggers then get everything again"
    return read_record(path, dict[str, Published], remedy) if path.is_file() else {}


def record_published(run: Run, name: str, new: Published) -> None:
    """Adds to the ledger of a run what a logger has received.

    Args:
        name: of the logger.
    """
    ledger = read_published(run)
    before = ledger.get(name) or contents(None, {})
    curves = {
        curve: sorted({*before["curves"].get(curve, []), *new["curves"].get(curve, [])})
        for curve in before["curves"] | new["curves"]
    }
    ledger[name] = {"stamps": new["stamps"] | before["stamps"], "curves": curves}
    write_text(run.folder / PUBLISHED, json.dumps(ledger, indent=2) + "\n")


def contents(results: pl.DataFrame | None, curves: Curves) -> Published:
    """The ledger entry for results and robustness curves."""
    severities: dict[str, list[int]] = {}
    for severity, values in curves.items():
        for name in values:
            severities.setdefault(name, []).append(severity)
    return {"stamps": {} if results is None else stamps_by_dataset(results), "curves": severities}


def missing_results(
    had: Published, results: pl.DataFrame, evaluation: Run
) -> tuple[pl.DataFrame, dict[int, dict[str, float]]]:
    """The results and robustness values of an evaluation that a logger lacks.

    Datasets that the logger has with another stamp are left out.

    Args:
        had: what the logger has received.
        results: of the evaluation.
    """
    stamps = stamps_by_dataset(results)
    other = [name for name, levels in stamps.items() if had["stamps"].get(name, levels) != levels]
    curves: dict[int, dict[str, float]] = {}
    for severity, values in robustness_values(evaluation, without=other).items():
        for name, value in values.items():
            before = had["curves"].get(name, [])
            # The mean over other corruptions is not a point of the same curve.
            other_mean = bool(before) and "/mean/" in name
            if severity not in before and not other_mean:
                curves.setdefault(severity, {})[name] = value
    return results.filter(~pl.col("dataset").is_in([*had["stamps"]])), curves


def warn_of_other_stamps(
    had: Sequence[Mapping[str, Mapping[str, str]]],
    stamps: Mapping[str, Mapping[str, str]],
    folder: Path,
) -> None:
    """Warns of datasets that loggers already have with another protocol stamp.

    Args:
        had: the stamps that each logger has.
        stamps: of an evaluation.
        folder: of the evaluation.
    """
    pairs = {
        f"{name}: {_format_stamps(theirs[name])} there, {_format_stamps(levels)} here"
        for theirs in had
        for name, levels in stamps.items()
        if theirs.get(name, levels) != levels
    }
    if pairs:
        log.warning(
            "The loggers have results of another protocol stamp (%s) and keep them; those of this "
            "evaluation are in %s and in fmsd report.",
            "; ".join(sorted(pairs)),
            folder,
        )


def _format_stamps(levels: Mapping[str, str]) -> str:
    return ", ".join(f"{stamp} of {level}s" for level, stamp in levels.items())
