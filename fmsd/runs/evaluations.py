"""Evaluations of a run: `RUN/evaluations/DATE`, those of a sweep `RUN/evaluations/DATE/NUMBER`."""

from pathlib import Path

from fmsd.runs.folder import Run
from fmsd.runs.listing import run_folders

EVALUATIONS = "evaluations"


def finished_evaluations(run: Run) -> list[Run]:
    """The finished evaluations in the folder of a run, the oldest first.

    Raises:
        InputError: the `run.json` of one is damaged.
    """
    places = run_folders(run.folder / EVALUATIONS, "run.json")
    found = [one for one in map(Run, places) if one.finished]
    return sorted(found, key=lambda one: (one.record().get("time", ""), one.folder))


def run_of_evaluation(evaluation: Path) -> Path | None:
    """The folder of the run that an evaluation lies in; None if it does not lie in one."""
    places = (
        folder.parent for folder in evaluation.absolute().parents if folder.name == EVALUATIONS
    )
    return next((place for place in places if (place / "run.json").is_file()), None)
