"""The runs below a folder."""

import os
from pathlib import Path

from fmsd.errors import InputError
from fmsd.runs.continuation import continuation
from fmsd.runs.folder import PARTS, Run

MLFLOW_STORE = "mlflow.db"
"""The file that marks a store of MLflow, see `fmsd.tracking.mlflow`."""


def run_folders(folder: Path, *names: str) -> list[Path]:
    """The folders at and below a folder that hold a file of a run, in the order of their paths.

    Loggers keep copies of a run's files: they are looked for neither in the parts of a run nor in a
    store of MLflow. Links are not followed.

    Args:
        names: of files; one of them is enough.
    """
    found = []
    for place, folders, files in os.walk(folder):
        if MLFLOW_STORE in files:
            folders.clear()
            continue
        if not {"config.yaml", "run.json"}.isdisjoint(files):
            folders[:] = [name for name in folders if name not in PARTS]
        if not {*names}.isdisjoint(files):
            found.append(Path(place))
    return sorted(found)


def recorded_runs(run: Path | None, runs: Path | None, purpose: str) -> list[Run]:
    """A run and the evaluations in its folder, or all runs below a folder, the ones above first.

    Args:
        run: folder of a run.
        runs: a folder of runs, in place of `run`.
        purpose: what is done with them, as a verb for the messages (`compare`).

    Raises:
        InputError: not exactly one of the two is given, `run` is no run or one without a record,
            or there is no run below `runs`.
    """
    folder = run or runs
    if folder is None or (run is not None and runs is not None):
        raise InputError(
            f"It is not clear which runs to {purpose}: one, or all below a folder",
            "give either run=RUN or runs=FOLDER",
        )
    if run is not None:
        check_begun_run(Run(run), purpose)
    found = run_folders(folder, "run.json")
    if not found:
        raise InputError(f"There is no run below {folder}", "give a folder of runs as runs=FOLDER")
    return [Run(path) for path in found]


def check_begun_run(run: Run, purpose: str) -> None:
    """Checks that a folder is that of a run with a record.

    Args:
        purpose: see `recorded_runs`.

    Raises:
        InputError: it is none, or the run was interrupted before its record was written.
    """
    if run.config.is_file() and not (run.folder / "run.json").is_file():
        raise InputError(
            f"The run in {run.folder} is not finished, so there is nothing to {purpose} yet",
            continuation(run.folder),
        )
    run.record()
