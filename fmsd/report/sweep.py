"""A sweep as a folder: what it holds, how its jobs ended whatever process they ran in, and which earlier one it goes on with."""

import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fmsd.report.console import show
from fmsd.report.run import ERROR, Run, prune, write
from fmsd.types import InputError

log = logging.getLogger(__name__)

CONTENTS = "sweep.json"
"""Where a sweep's folder keeps every key that was set, with all values it was given."""


@dataclass(frozen=True)
class Note:
    """How a job of a sweep ended, in a file: it can be in any process, and be killed. As long as it says nothing else, it was."""

    number: int
    overrides: list[str]
    folder: str
    ended: str = "killed"  # or done, skipped, busy, failed
    code: int = 1

    def keep(self, notes: Path) -> None:
        """Writes the file, atomically."""
        write(notes / f"{self.number}.json", json.dumps(asdict(self)))


def attempt(work: Callable[[], int | None], note: Note, notes: Path) -> float | None:
    """Does a job of a sweep and notes how it ended; an error, which would end other jobs or keep their memory, stays in the job's folder.

    Returns:
        What chose the weights, for a sweeper that looks for better ones; None without such.
    """
    note.keep(notes)
    run, words = Run(Path(note.folder)), " ".join(note.overrides)
    told, finished = run.folder / ERROR, run.finished
    told.unlink(missing_ok=True)
    try:
        code = work() or 0
    except InputError as error:
        code = 2
        write(told, f"{error}\n")
    except Exception:
        code = 1
        write(told, traceback.format_exc())
    if code and run.busy:
        told.unlink(missing_ok=True)
        code, how = 0, "busy"
    else:
        how = "failed" if code else "skipped" if finished else "done"
    replace(note, ended=how, code=code if code in (0, 2) else 1).keep(notes)
    if how in ("busy", "failed"):
        log.error("%s: %s", words, why(how, run.folder))
    return run.record()["monitored"] if run.finished and not code else None


def why(ended: str, folder: Path) -> str:
    """Why a job of a sweep did not come to its end, in a line."""
    if ended == "busy":
        return "Another process is at work on it."
    lines = (folder / ERROR).read_text().strip().splitlines() if (folder / ERROR).is_file() else []
    return lines[-1] if lines else "It ended without a word: interrupted, or killed by the system, which does so when memory runs out."


def summed_up(notes: Path) -> int:
    """Says how the jobs of a sweep ended, and forgets the notes; the exit code of the first that failed, or 0."""
    found = sorted((Note(**json.loads(path.read_text())) for path in notes.glob("*.json")), key=lambda note: note.number)
    sweep = notes.parent.parent
    if found:
        numbers = {how: sum(note.ended == how for note in found) for how in ("done", "skipped", "busy", "failed", "killed")}
        words = ("done", "finished before (skipped)", "at work in another process", "failed", "broken off")
        title = f"Sweep in {sweep}: " + ", ".join(f"{count} {word}" for count, word in zip(numbers.values(), words, strict=True) if count)
        open_ = [note for note in found if note.ended in ("busy", "failed", "killed")]
        common = set.intersection(*({*note.overrides} for note in found)) if len(found) > 1 else set()
        named_ = [" ".join(word for word in note.overrides if word not in common) for note in open_]
        rows = [[name, why(note.ended, Path(note.folder)), os.path.relpath(note.folder, sweep)] for name, note in zip(named_, open_, strict=True)]
        if rows:
            remedy = f"The same command again does what is missing; a job's {ERROR}, where it has one, tells more."
            show(title, ("not done", "why", "folder"), rows, remedy, ("why", "folder"))
        else:
            print(f"{title}.")
    shutil.rmtree(notes, ignore_errors=True)
    prune(notes.parent)
    if {path.name for path in sweep.glob("*")} <= {CONTENTS, "multirun.yaml"}:  # nothing came of it
        for path in sweep.glob("*"):
            path.unlink()
        prune(sweep)
    return next((note.code for note in found if note.code), 0)


def contents(folder: Path) -> dict[str, list[str]]:
    """Every key that an earlier sweep set, with its values; empty where there is none."""
    return json.loads((folder / CONTENTS).read_text()) if (folder / CONTENTS).is_file() else {}


def kindred(place: Path, asked: Mapping[str, Sequence[str]]) -> Path | None:
    """The newest sweep in a folder that does the same jobs, some of them, or all of them and more."""
    for file in sorted(place.glob(f"*/{CONTENTS}"), key=lambda path: path.stat().st_mtime, reverse=True):
        known = contents(file.parent)
        pairs = [({*known[key]}, {*asked[key]}) for key in asked] if known.keys() == asked.keys() else []
        if pairs and (all(old <= new for old, new in pairs) or all(new <= old for old, new in pairs)):
            return file.parent
    return None
