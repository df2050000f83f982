"""Reproducing: the commands behind a table of experiments/, one after the other, and how far their numbers are from the recorded ones."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from fmsd.console import show
from fmsd.errors import InputError
from fmsd.quoting import hydra_quote
from fmsd.runs.folder import Run, read_results

log = logging.getLogger(__name__)

KEYS = ["run", "seed", "dataset", "level", "metric", "stamp", "settings"]
"""In what two numbers agree that were made alike: the stamp says by what protocol, the settings what learned."""

FIXED = (
    "experiments",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.run.dir",
    "data.train_forgeries",
    "data.left_out",
)
"""What overrides must not change: the table would not be found where it is looked for, or compare something else."""


def reproduce(
    name: str,
    steps: Sequence[str],
    values: Mapping[str, str],
    words: Sequence[str],
    command: Callable[[Sequence[str]], int],
    recorded: Path,
) -> int:
    """Runs the commands of one table and compares what came out with the recorded numbers; the exit code of the first that failed, or 0.

    What is finished already is not done again.

    Args:
        steps: the commands, see `filled`.
        values: what is filled in; `out` is the table's folder.
        words: overrides for every training.
        command: runs one and returns its exit code.
        recorded: the recorded numbers; the file need not be there.

    Raises:
        InputError: an override would break it, no run came of its trainings, or the recorded file
            is damaged.
    """
    own = {
        word.lstrip("+~").partition("=")[0]
        for step in steps
        if step.startswith("train")
        for word in shlex.split(step)[1:]
        if "=" in word
    }
    if wrong := [word for word in words if word.lstrip("+~").partition("=")[0] in own.union(FIXED)]:
        raise InputError(
            f"{', '.join(wrong)} would change what the table {name} compares, which sets it itself",
            "leave it out, or train by hand",
        )
    if recorded.is_file():
        _numbers(recorded)
    for step in steps:
        for line in filled(step, values):
            whole = [*line, *(words if line[0] == "train" else [])]
            log.info("fmsd %s", shlex.join(whole))
            if code := command(whole):
                return code
    compare(recorded, Path(values["out"]) / "report" / "results.csv")
    return 0


def filled(step: str, values: Mapping[str, str]) -> Iterator[list[str]]:
    """A command's words, with `{NAME}` for a value; not where its folder, if it names one, holds a finished run.

    A command with `{run}` is filled in for each finished training below `out` in turn, one with
    `{forgery}` for each of the `forgeries`, of which `{first}` is the first.

    Raises:
        InputError: it is for trainings, and there is none.
    """
    words, forgeries = shlex.split(step), values.get("forgeries", "").split(",")
    turns = [{"forgery": name} for name in forgeries] if "{forgery}" in step else [{}]
    if "{run}" in step:
        records = {
            path.parent: Run(path.parent).record()
            for path in sorted(Path(values["out"]).rglob("run.json"))
        }
        turns = [
            {"run": str(run)}
            for run, record in records.items()
            if Run(run).finished
            and record.get("finished", True)
            and not {"run", "merged"} & record.keys()
        ]
        if not turns:
            raise InputError(
                f"There is no finished training below {values['out']}",
                "the one that was made lies elsewhere",
            )
    for turn in turns:
        line = []
        for word in words:
            key, sign, text = word.partition("=")
            path = text.startswith(("{out}", "{run}"))
            for name, value in {**values, "first": forgeries[0], **turn}.items():
                text = text.replace(f"{{{name}}}", value)
            if key == "hydra.run.dir" and Run(Path(text)).finished:
                log.info("%s is finished: skipped.", text)
                break
            line.append(f"{key}{sign}{hydra_quote(text) if path else text}")
        else:
            yield line


def compare(recorded: Path, made: Path) -> pl.DataFrame | None:
    """Prints the video AUC of every row beside the recorded one, a mean over its seeds and datasets, and where they are furthest apart.

    Returns:
        Every number with the recorded one; None where there is none that was made alike.
    """
    if not recorded.is_file():
        log.info("There are no recorded numbers in %s to compare with.", recorded)
        return None
    now = _numbers(made)
    both = now.join(
        _numbers(recorded).rename({"value": "recorded"}),
        on=KEYS,
        nulls_equal=True,
        maintain_order="left",
    )
    if both.is_empty():
        log.info(
            "The numbers in %s were made otherwise (other data, size or settings), so nothing is "
            "compared.",
            recorded,
        )
        return None
    both = both.with_columns(apart=(pl.col("value") - pl.col("recorded")).abs())
    rows = []
    for (run,), own in both.filter(level="video").group_by("run", maintain_order=True):
        furthest = own.row(own["apart"].to_list().index(own["apart"].max()), named=True)
        numbers = (own["value"].mean(), own["recorded"].mean(), furthest["apart"])
        rows.append([str(run), *(f"{number:.3f}" for number in numbers), furthest["dataset"]])
    seeds, alone = ", ".join(map(str, both["seed"].unique().sort())), len(now) - len(both)
    note = f"Seeds {seeds}; recorded in {recorded}" + (
        f"; {alone} of {len(now)} numbers are not recorded" if alone else ""
    )
    show(
        "Video AUC, mean over test datasets",
        ["", "now", "recorded", "furthest apart", "on"],
        rows,
        note,
        ("on",),
    )
    return both


def _numbers(path: Path) -> pl.DataFrame:
    """The AUCs of a report's `results.csv`.

    Raises:
        InputError: it is none.
    """
    table = read_results(path, ("run", "stamp"))
    if lacking := [key for key in KEYS if key not in table.columns]:
        raise InputError(
            f"{path} has no column {lacking[0]}, so it is no results.csv of fmsd report",
            "put that in its place",
        )
    return table.filter(metric="auc").select(*KEYS, "value")
