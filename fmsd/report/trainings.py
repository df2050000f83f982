"""The training behind an evaluation, and trainings that did not reach their end."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.runs.evaluations import run_of_evaluation
from fmsd.runs.folder import CHECKPOINTS, ERROR, Run

log = logging.getLogger(__name__)


SHOWN = 5
"""Names in a warning at most."""


def has_results(folder: Path) -> bool:
    """Whether the run in a folder was tested."""
    return (folder / "run.json").is_file() and (folder / "results.csv").is_file()


def warn_of_unfinished(folder: Path, places: Sequence[Path]) -> None:
    """Warns of runs without results: interrupted, at work, or failed jobs of a sweep.

    A table would otherwise lack a seed without a word.

    Args:
        folder: the folder of the report.
        places: folders below it with a configuration, results or an error.
    """
    names = []
    for place in places:
        failed = (place / ERROR).is_file()
        begun = any((place / part).is_dir() for part in (CHECKPOINTS, "predictions"))
        if (failed or (begun and Run(place).config.is_file())) and not has_results(place):
            name = str(place.relative_to(folder))
            names.append(f"{name} (failed, see its {ERROR})" if failed else name)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        log.warning(
            "%d runs below %s have no results and are left out: %s%s; give their command again, or "
            "go on with fmsd train resume=RUN.",
            len(names),
            folder,
            ", ".join(names[:SHOWN]),
            more,
        )


def training_places(run: Run, record: Mapping[str, Any]) -> list[Path]:
    """Where the training of an evaluation may be.

    The recorded path comes first, then the run that the evaluation lies in, in case it was moved.
    """
    above = run_of_evaluation(run.folder)
    tested = record["run"]
    recorded = Path(tested) if is_address(tested) else Path(tested).resolve()
    return [recorded, *([] if above is None else [above.resolve()])]


def training_of(run: Run, record: Mapping[str, Any]) -> Path:
    """The folder of the training that an evaluation tested; the recorded path if it is gone."""
    places = training_places(run, record)
    return next((place for place in places if (place / "run.json").is_file()), places[0])


def without_interrupted(
    tested: Sequence[Run], records: Mapping[Run, Mapping[str, Any]]
) -> list[Run]:
    """The runs and evaluations whose training had reached its end; warns of the others.

    The weights of an interrupted training made fewer steps than those of the other rows and seeds:
    a table would compare the interruption, and a mean over seeds would be over two things.

    Args:
        records: content of each `run.json`.
    """
    left_out = [run for run in tested if _is_interrupted(run, records[run])]
    if left_out:
        log.warning(
            "Tests of interrupted trainings are left out (%d, such as %s): finish the training "
            "with fmsd train resume=RUN, then test it again.",
            len(left_out),
            left_out[0].folder,
        )
    return [run for run in tested if run not in left_out]


def _is_interrupted(run: Run, record: Mapping[str, Any]) -> bool:
    """Whether the weights that a folder tested are those of an interrupted training."""
    if "run" in record and "finished" not in record:
        training = Run(training_of(run, record))
        record = training.record() if (training.folder / "run.json").is_file() else {}
    return record.get("finished") is False


def test_time(run: Run, record: Mapping[str, Any]) -> float:
    """The time of a test, in seconds.

    Raises:
        InputError: `run.json` holds no time.
    """
    try:
        return datetime.fromisoformat(record["time"]).timestamp()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.folder / 'run.json'} has the time {record.get('time')!r}",
            "correct it to one like 2026-01-31T12:00:00+00:00",
        ) from error
