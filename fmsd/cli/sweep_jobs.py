"""How the jobs of a sweep end, noted in files since they may run in any process and be killed."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fmsd.cli.outcome import JobOutcome
from fmsd.cli.sweep import BEGUN, CONTENTS, HYDRA_FILE, read_contents, write_contents
from fmsd.console import print_place, print_table
from fmsd.json_output import open_document
from fmsd.json_records import Count, read_record
from fmsd.runs.folder import BUSY, ERROR, Run, remove_empty_folders, write_text
from fmsd.signals import check

log = logging.getLogger(__name__)

ENDS = {
    "done": "done",
    "skipped": "finished before (skipped)",
    "busy": "at work in another process",
    "failed": "failed",
    "interrupted": "interrupted",
    "killed": "broken off",
}
"""How a job can end, with its text in the summary."""


NOTE_REMEDY = "give the same command again: it does what is missing"


@with_config(ConfigDict(extra="forbid"))
class NoteRecord(TypedDict):
    """The file of a `JobNote`."""

    number: Count
    overrides: list[str]
    folder: str
    ended: Literal["done", "skipped", "busy", "failed", "interrupted", "killed"]
    code: int


class BegunRecord(TypedDict):
    """The file `BEGUN`."""

    jobs: Count
    before: dict[str, list[str]]


@dataclass(frozen=True)
class JobNote:
    """How a job of a sweep ended.

    Args:
        number: of the job in its sweep.
        folder: the job's.
        ended: a key of `ENDS`; `killed` until the job itself writes otherwise.
        code: the exit code.
    """

    number: int
    overrides: list[str]
    folder: str
    ended: str = "killed"
    code: int = 1

    @property
    def unfinished(self) -> bool:
        """Whether its run is not finished."""
        return self.ended not in ("done", "skipped")

    def write(self, notes: Path) -> None:
        """Writes the note's file, atomically."""
        write_text(notes / f"{self.number}.json", json.dumps(asdict(self)))


def run_noted_job(work: Callable[[], JobOutcome], note: JobNote, notes: Path) -> float | None:
    """Runs a job of a sweep and notes how it ended.

    Its error is written into its folder and not raised: that would end the other jobs. Only where
    it cannot be written, the sweep ends.

    Returns:
        The value that chose the weights, for a sweeper that optimises it; None without one.
    """
    check()  # a signal that a library swallowed is to end the sweep all the same
    note.write(notes)
    run = Run(Path(note.folder))
    finished = run.finished
    (run.folder / ERROR).unlink(missing_ok=True)
    try:
        outcome = work()
    except KeyboardInterrupt:
        replace(note, ended="interrupted").write(notes)
        raise
    code = outcome.code
    ended = "busy" if code == BUSY else "failed" if code else "skipped" if finished else "done"
    code = 0 if ended == "busy" else code if code in (0, 2) else 1
    try:
        outcome.write_error(run.folder)
        replace(note, ended=ended, code=code).write(notes)
    except OSError as error:  # a full disk, which the job's own error names better
        raise (outcome.error or error) from error
    if ended in ("busy", "failed"):
        log.error("%s: %s", " ".join(note.overrides), failure_reason(ended, run.folder))
    return run.record()["monitored"] if run.finished and ended in ("done", "skipped") else None


def failure_reason(ended: str, folder: Path) -> str:
    """Why a job of a sweep is not done, in one line."""
    if ended == "busy":
        return "Another process is at work on it."
    if ended == "interrupted":
        return "Interrupted."
    file = folder / ERROR
    lines = file.read_text(encoding="utf-8").strip().splitlines() if file.is_file() else []
    if lines:
        return lines[-1]
    return (
        "It ended without a message: interrupted, or killed by the system, which does so when "
        "memory runs out."
    )


def report_sweep(notes: Path) -> int:
    """Prints how the jobs of a sweep ended and deletes their notes.

    Returns:
        The exit code of the first job that failed, or 0.

    Raises:
        InputError: a note is damaged.
    """
    jobs = sorted(
        (JobNote(**read_record(path, NoteRecord, NOTE_REMEDY)) for path in notes.glob("*.json")),
        key=lambda note: note.number,
    )
    sweep, begun = notes.parent.parent, read_record(notes / BEGUN, BegunRecord, NOTE_REMEDY)
    with contextlib.suppress(OSError):  # a full disk: then only a changed command is another sweep
        drop_refused_values(sweep, begun["before"], jobs)
    if jobs:
        print_summary(sweep, jobs, begun["jobs"] - len(jobs))
    shutil.rmtree(notes, ignore_errors=True)
    remove_empty_folders(notes.parent)
    if {path.name for path in sweep.glob("*")} <= {CONTENTS, HYDRA_FILE}:  # no job left anything
        for path in sweep.glob("*"):
            path.unlink()
        remove_empty_folders(sweep)
    return next((note.code for note in jobs if note.code), 0)


def print_summary(sweep: Path, jobs: Sequence[JobNote], not_begun: int) -> None:
    """Prints how many jobs ended in which way, and a table of those that are not done.

    Args:
        not_begun: number of jobs without a note.
    """
    counts = {text: sum(note.ended == end for note in jobs) for end, text in ENDS.items()}
    counts["not begun"] = not_begun
    shown = ", ".join(f"{count} {text}" for text, count in counts.items() if count > 0)
    title = f"Sweep in {sweep}: {shown}"
    shared = set.intersection(*({*note.overrides} for note in jobs)) if len(jobs) > 1 else set()
    rows = [
        [
            " ".join(override for override in note.overrides if override not in shared),
            failure_reason(note.ended, Path(note.folder)),
            os.path.relpath(note.folder, sweep),
        ]
        for note in jobs
        if note.unfinished
    ]
    if not rows or open_document() is not None:
        print_place(f"{title}.", sweep)
    remedy = (
        f"The same command again does what is missing; the {ERROR} of a job, where it has one, "
        "holds the whole error."
    )
    records = [
        asdict(note)
        | {"why": failure_reason(note.ended, Path(note.folder)) if note.unfinished else None}
        for note in jobs
    ]
    print_table(
        title,
        ("not done", "why", "folder"),
        rows,
        remedy if rows else "",
        ("why", "folder"),
        name="jobs",
        records=records,
    )


def drop_refused_values(
    folder: Path, before: Mapping[str, Sequence[str]], jobs: Sequence[JobNote]
) -> None:
    """Removes values whose jobs were all refused from `CONTENTS`; without jobs, all new values.

    The same command without such a mistyped value then finds this sweep again.

    Args:
        before: what `CONTENTS` held when the sweep began.
    """
    refused = {
        note.number
        for note in jobs
        if note.code == 2 and not Run(Path(note.folder)).config.exists()
    }
    used = {override for note in jobs if note.number not in refused for override in note.overrides}
    vain = {override for note in jobs if note.number in refused for override in note.overrides}
    vain -= used
    known = read_contents(folder)
    after = (
        {
            key: [value for value in values if f"{key}={value}" not in vain] or values
            for key, values in known.items()
        }
        if jobs
        else before
    )
    if after and after != known:
        write_contents(folder, after)
