"""Verifying: the files of runs, compared with the digests in their records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmsd.console import print_table, track
from fmsd.errors import InputError
from fmsd.runs.evaluations import run_of_evaluation
from fmsd.runs.folder import CHECKPOINTS, Run
from fmsd.runs.integrity import (
    File,
    State,
    compare,
    damaged_entry,
    file_names,
    has_other_weights,
    recorded_digests,
    refusal,
)
from fmsd.runs.listing import recorded_runs

SHOWN = 50
"""Lines of the table of files at most; the document of `--json` has all files."""


@dataclass
class Verified:
    """A run beside its record.

    Args:
        run: the run.
        files: those with a digest or a checksum, and those without that should have one.
        faults: why files cannot be used, by name.
    """

    run: Run
    files: list[File] = field(default_factory=list)
    faults: dict[str, InputError] = field(default_factory=dict)

    def add(self, file: File, fault: InputError | None) -> None:
        """Adds a file, with why it cannot be used if it cannot."""
        self.files.append(file)
        if fault is not None:
            self.faults[file.name] = fault


def verify(run: Path | None, runs: Path | None) -> list[Verified]:
    """Compares every file of a run, or of all runs below a folder, with the run's record.

    The evaluations in a run's folder are runs of their own.

    Args:
        run: folder of a run.
        runs: a folder of runs, in place of `run`.

    Returns:
        The runs, the ones above before the ones below.

    Raises:
        InputError: there is no run, or a file is not what its run wrote; all are printed before.
    """
    found = recorded_runs(run, runs, "compare")
    verified = [verify_run(one) for one in track(found, "Reading files", len(found), "runs")]
    print_verified(verified)
    raise_faults(verified)
    return verified


def verify_run(run: Run) -> Verified:
    """Compares the files of one run with its record, and the checkpoints with their checksums."""
    result = Verified(run)
    try:
        record = run.record()
        recorded = recorded_digests(run.folder, record) or {}
        fault = weights_fault(run, record)
    except InputError as error:
        fault = error
    else:
        names = dict.fromkeys([*recorded, *file_names(run.folder)])
        for file in compare(run.folder, record, names):
            result.add(file, refusal(run.folder, record, file))
    if fault is not None:
        result.add(File("run.json", State.CHANGED), fault)
    for checkpoint in sorted((run.folder / CHECKPOINTS).glob("*.ckpt")):
        fault = checkpoint_fault(checkpoint)
        state = State.GOOD if fault is None else State.CHANGED
        result.add(File(f"{CHECKPOINTS}/{checkpoint.name}", state), fault)
    return result


def weights_fault(run: Run, record: Mapping[str, Any]) -> InputError | None:
    """Why an evaluation is not one of the run that it lies in; None if it is, or is no evaluation.

    Args:
        record: of the evaluation.
    """
    tested = run_of_evaluation(run.folder)
    if tested is None or not has_other_weights(tested, Run(tested).record(), record):
        return None
    return InputError(
        f"{run.folder} tested other weights than those that {tested} has now",
        "remove it, and test that run again with fmsd evaluate",
    )


def checkpoint_fault(checkpoint: Path) -> InputError | None:
    """Why a checkpoint cannot be used; None if all its parts have their checksums."""
    remedy = "put it back from a copy, or remove it"
    try:
        part = damaged_entry(checkpoint)
    except Exception:  # a damaged archive raises anything
        return InputError(f"The checkpoint {checkpoint} cannot be read", remedy)
    if part is None:
        return None
    return InputError(
        f"The checkpoint {checkpoint} is damaged: its part {part} is not what was written", remedy
    )


def print_verified(verified: Sequence[Verified]) -> None:
    """Prints how many files of each run are in which state, and the files that do not fit."""
    counts = [Counter(file.state for file in one.files) for one in verified]
    states = [
        state for state in State if state == State.GOOD or any(each[state] for each in counts)
    ]
    print_table(
        "Files of each run, compared with its record",
        ["", *states],
        [
            [str(one.run.folder), *(str(each[state]) for state in states)]
            for one, each in zip(verified, counts, strict=True)
        ],
        note(counts),
        name="runs",
        records=[
            {"run": str(one.run.folder)} | {state.replace(" ", "_"): each[state] for state in State}
            for one, each in zip(verified, counts, strict=True)
        ],
    )
    odd = [
        [str(one.run.folder / file.name), file.state]
        for one in verified
        for file in one.files
        if file.name in one.faults
    ]
    print_table(
        "Files that are not what their run wrote",
        ["file", "state"],
        odd[:SHOWN],
        f"{len(odd) - SHOWN} more are not shown." if len(odd) > SHOWN else "",
        ("state",),
        name="files",
        records=[
            {"run": str(one.run.folder), **describe(file)} for one in verified for file in one.files
        ],
    )


def describe(file: File) -> dict[str, Any]:
    """A file as the document of `--json` shows it."""
    return {
        "file": file.name,
        "state": str(file.state),
        "recorded": file.recorded,
        "found": file.found,
    }


def note(counts: Sequence[Counter[State]]) -> str:
    """What was not verified, as a caption; empty if all was."""
    bare = sum(each[State.NOT_RECORDED] > 0 for each in counts)
    if not bare:
        return ""
    return (
        f"{bare} of {len(counts)} runs have no digests in their run.json, so their files were not "
        "verified: they were interrupted, or written by an earlier version."
    )


def raise_faults(verified: Sequence[Verified]) -> None:
    """Raises the fault of a file if there is one; of several, a sentence that counts them."""
    faults = [(one, name) for one in verified for name in one.faults]
    if not faults:
        return
    one, name = faults[0]
    if len(faults) == 1:
        raise one.faults[name]
    raise InputError(
        f"{len(faults)} files are not what their run wrote, {one.run.folder / name} for one",
        "put them back from a copy, or make these runs again",
    )
