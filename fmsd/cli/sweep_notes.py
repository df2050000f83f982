"""A sweep as a folder: what it holds, how its jobs ended whatever process they ran in, and which earlier one it goes on with."""

import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fmsd.console import print_table
from fmsd.errors import BusyError, InputError
from fmsd.runs.folder import BUSY, ERROR, Run, remove_empty_folders, write_text

log = logging.getLogger(__name__)

CONTENTS = "sweep.json"
"""Where a sweep's folder keeps every key that was set, with all values it was given."""

HYDRAS = "multirun.yaml"
"""What Hydra itself writes into a sweep's folder."""

BEGUN = "begun"
"""Where the notes of a sweep keep how many jobs it has, and what its folder held before."""

ENDS = {
    "done": "done",
    "skipped": "finished before (skipped)",
    "busy": "at work in another process",
    "failed": "failed",
    "interrupted": "interrupted",
    "killed": "broken off",
}
"""How a job can end, and what is said of it."""


@dataclass(frozen=True)
class Note:
    """How a job of a sweep ended, in a file: it can be in any process, and be killed. As long as it says nothing else, it was."""

    number: int
    overrides: list[str]
    folder: str
    ended: str = "killed"  # see ENDS
    code: int = 1

    def keep(self, notes: Path) -> None:
        """Writes the file, atomically."""
        write_text(notes / f"{self.number}.json", json.dumps(asdict(self)))


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
    except KeyboardInterrupt:
        replace(note, ended="interrupted").keep(notes)
        raise
    except BusyError:
        code = BUSY
    except InputError as error:
        code = 2
        write_text(told, f"{error}\n")
    except Exception:
        code = 1
        write_text(told, traceback.format_exc())
    how = "busy" if code == BUSY else "failed" if code else "skipped" if finished else "done"
    code = 0 if how == "busy" else code if code in (0, 2) else 1
    replace(note, ended=how, code=code).keep(notes)
    if how in ("busy", "failed"):
        log.error("%s: %s", words, why(how, run.folder))
    return run.record()["monitored"] if run.finished and how in ("done", "skipped") else None


def why(ended: str, folder: Path) -> str:
    """Why a job of a sweep did not come to its end, in a line."""
    if ended == "busy":
        return "Another process is at work on it."
    if ended == "interrupted":
        return "Interrupted."
    lines = (
        (folder / ERROR).read_text(encoding="utf-8").strip().splitlines()
        if (folder / ERROR).is_file()
        else []
    )
    return (
        lines[-1]
        if lines
        else "It ended without a word: interrupted, or killed by the system, which does so when "
        "memory runs out."
    )


def summed_up(notes: Path) -> int:
    """Says how the jobs of a sweep ended, and forgets the notes; the exit code of the first that failed, or 0."""
    found = sorted(
        (Note(**json.loads(path.read_text(encoding="utf-8"))) for path in notes.glob("*.json")),
        key=lambda note: note.number,
    )
    sweep, begun = notes.parent.parent, json.loads((notes / BEGUN).read_text(encoding="utf-8"))
    keep(sweep, begun["before"], found)
    if found:
        numbers = {word: sum(note.ended == how for note in found) for how, word in ENDS.items()} | {
            "not begun": begun["jobs"] - len(found)
        }
        title = f"Sweep in {sweep}: " + ", ".join(
            f"{count} {word}" for word, count in numbers.items() if count > 0
        )
        open_ = [note for note in found if note.ended not in ("done", "skipped")]
        common = (
            set.intersection(*({*note.overrides} for note in found)) if len(found) > 1 else set()
        )
        named_ = [" ".join(word for word in note.overrides if word not in common) for note in open_]
        rows = [
            [name, why(note.ended, Path(note.folder)), os.path.relpath(note.folder, sweep)]
            for name, note in zip(named_, open_, strict=True)
        ]
        if rows:
            remedy = (
                f"The same command again does what is missing; a job's {ERROR}, where it has "
                "one, tells more."
            )
            print_table(title, ("not done", "why", "folder"), rows, remedy, ("why", "folder"))
        else:
            print(f"{title}.")
    shutil.rmtree(notes, ignore_errors=True)
    remove_empty_folders(notes.parent)
    if {path.name for path in sweep.glob("*")} <= {CONTENTS, HYDRAS}:  # nothing came of it
        for path in sweep.glob("*"):
            path.unlink()
        remove_empty_folders(sweep)
    return next((note.code for note in found if note.code), 0)


def begin(folder: Path, notes: Path, asked: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Writes down what a sweep holds from now on, and for its end what its folder held before.

    Raises:
        InputError: what was written down before cannot be read, or the folder holds another
            program's sweep.
    """
    if os.path.lexists(folder / HYDRAS) and not (folder / CONTENTS).is_file():
        raise InputError(
            f"{folder / HYDRAS} is of another sweep and would be lost",
            "choose another folder with hydra.sweep.dir=FOLDER",
        )
    known = contents(folder)
    write_text(notes / BEGUN, json.dumps({"jobs": jobs, "before": known}))
    both = (
        {key: sorted({*known[key], *asked[key]}) for key in asked}
        if known.keys() == asked.keys()
        else asked
    )
    write_text(folder / CONTENTS, json.dumps(both, indent=2) + "\n")


def keep(folder: Path, before: Mapping[str, Sequence[str]], found: Sequence[Note]) -> None:
    """Takes back the values of a sweep that was refused as a whole, or of which every job was, so that without them it is found again."""
    idle = {
        note.number
        for note in found
        if note.code == 2 and not Run(Path(note.folder)).config.exists()
    }
    tried = [
        {word for note in found if (note.number in idle) == refused for word in note.overrides}
        for refused in (False, True)
    ]
    known = contents(folder)
    vain = tried[1] - tried[0]
    after = (
        {
            key: [one for one in given if f"{key}={one}" not in vain] or given
            for key, given in known.items()
        }
        if found
        else before
    )
    if after and after != known:
        write_text(folder / CONTENTS, json.dumps(after, indent=2) + "\n")


def contents(folder: Path) -> dict[str, list[str]]:
    """Every key that an earlier sweep set, with its values; empty where there is none.

    Raises:
        InputError: the file that says so cannot be read.
    """
    file = folder / CONTENTS
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict) or not all(isinstance(given, list) for given in known.values()):
        raise InputError(
            f"{file} is damaged",
            "delete it (the jobs beside it stay, and are known again with "
            f"hydra.sweep.dir={folder})",
        )
    return known


def kindred(place: Path, asked: Mapping[str, Sequence[str]]) -> Path | None:
    """The newest sweep in a folder that does the same jobs, some of them, or all of them and more; says which one with the same keys does not."""
    told = False
    for file in sorted(
        place.glob(f"*/{CONTENTS}"), key=lambda path: path.stat().st_mtime, reverse=True
    ):
        try:
            known = contents(file.parent)
        except InputError as error:
            log.warning("%s", error)
            continue
        pairs = (
            {key: ({*known[key]}, {*asked[key]}) for key in asked}
            if known.keys() == asked.keys()
            else {}
        )
        if pairs and (
            all(old <= new for old, new in pairs.values())
            or all(new <= old for old, new in pairs.values())
        ):
            return file.parent
        if pairs and not told:
            other = " ".join(
                f"{key}={','.join(sorted(old))}" for key, (old, new) in pairs.items() if old != new
            )
            log.info(
                "The sweep in %s is another one, with %s; hydra.sweep.dir=FOLDER goes on in it "
                "all the same.",
                file.parent,
                other,
            )
            told = True
    return None
