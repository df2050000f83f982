"""Claiming a folder for a run: one process at a time, and nothing of others is lost."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from fmsd.errors import BusyError, InputError
from fmsd.lock import open_locked
from fmsd.quoting import shell_override
from fmsd.runs.configuration import first_difference
from fmsd.runs.folder import CHECKPOINTS, ERROR, PARTS, Run


@contextlib.contextmanager
def claim_run(
    run: Run, config: str, resumable: bool = False, option: str = "hydra.run.dir"
) -> Iterator[None]:
    """Writes a run's configuration and locks it; undoes everything on failure.

    On a failure before the first checkpoint, the parts of a run that were not there before are
    removed. The lock is released with the process and its loader processes, however they end.

    Args:
        config: text of the composed configuration.
        resumable: continue an unfinished run of the same configuration.
        option: the override that sets the folder, for messages.

    Raises:
        BusyError: another process is at work on the run, or has finished it meanwhile.
        InputError: the folder holds a run that is finished or configured differently, or files that
            would be lost and belong to no run.
    """
    finished_before = run.config.is_file() and run.finished
    with open_locked(run.config, patience=10 if resumable else 0) as file:
        if file is None:
            raise BusyError(
                f"Another process is at work on the run in {run.folder}",
                f"wait for it, or choose another folder with {option}=PATH",
            )
        if resumable and run.finished and not finished_before:
            raise BusyError(
                f"Another process has just finished the run in {run.folder}",
                f"see its results there, or choose another folder with {option}=PATH",
            )
        file.seek(0)
        existing = file.read()
        before = {
            part
            for part in PARTS
            if os.path.lexists(run.folder / part) and (existing or part != run.config.name)
        }
        if existing:
            _check_same_run(run, existing, config, resumable, option)
            for partial in partial_files(run.folder):
                partial.unlink(missing_ok=True)
            (run.folder / ERROR).unlink(missing_ok=True)  # of the previous attempt
            if (run.folder / "run.json").is_file() and run.record().get("files") is not None:
                run.write_record(run.record())  # its files are about to be replaced
        else:
            _check_no_foreign_files(run, before, option)
            file.write(config)
            file.flush()
        try:
            yield
        except BaseException:
            if not any((run.folder / CHECKPOINTS).glob("*.ckpt")):
                remove_parts(run, keep=before)
            raise


def partial_files(folder: Path) -> list[Path]:
    """Files of a run that a killed process left half written."""
    return [
        path
        for part in PARTS
        for path in (*folder.glob(f".{part}.*.partial"), *(folder / part).rglob(".*.partial"))
    ]


def _check_same_run(run: Run, existing: str, config: str, resumable: bool, option: str) -> None:
    """Raises unless a folder holds an unfinished run of the same configuration.

    Args:
        existing: text of the configuration in the folder.
    """
    if not resumable or run.finished:
        raise InputError(
            f"{run.folder} already holds a run", f"choose another folder with {option}=PATH"
        )
    if key := first_difference(existing, config):
        resume = (
            f" (fmsd train {shell_override('resume', run.folder)} continues it unchanged)"
            if (run.folder / CHECKPOINTS).is_dir()
            else ""
        )
        raise InputError(
            f"{run.folder} already holds a run, unfinished and different from this one in {key}",
            f"choose another folder with {option}=PATH, or remove it{resume}",
        )


def _check_no_foreign_files(run: Run, before: set[str], option: str) -> None:
    """Raises if a new run would overwrite files that belong to no run."""
    foreign = next(
        (part for part in PARTS if part in before and not _is_empty(run.folder / part)), None
    )
    if foreign is not None:
        run.config.unlink()  # empty, created for the lock
        raise InputError(
            f"{run.folder / foreign} belongs to no run and would be lost",
            f"choose another folder with {option}=PATH",
        )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def remove_parts(run: Run, keep: Collection[str]) -> None:
    """Removes the files of a run but some.

    Args:
        keep: names of the parts that stay.
    """
    for path in (run.folder / part for part in PARTS if part not in keep):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
