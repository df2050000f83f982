"""Reproducing: the commands behind a table of experiments/, one after the other, and how far their numbers are from the recorded ones."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from fmsd.report.console import show
from fmsd.report.run import Run, read_results
from fmsd.types import InputError

log = logging.getLogger(__name__)

KEYS = ["run", "seed", "dataset", "level", "metric", "stamp"]
"""What two numbers have in common that must agree: the stamp says that they were made alike."""


def reproduce(
    name: str,
    steps: Mapping[str, Sequence[str]],
    out: str,
    seed: str,
    words: Sequence[str],
    command: Callable[[Sequence[str]], int],
    recorded: Path,
) -> int:
    """Runs the commands of one table and compares what came out with the recorded numbers; the exit code of the first that failed, or 0.

    What is finished already is not done again.

    Args:
        steps: the commands of every table; `{out}`, `{seed}` and `{run}`, every trained run below `out` in turn, are filled in.
        out: the folder of the table, in which `{name}` is filled in.
        words: overrides for every training.
        command: runs one and returns its exit code.
        recorded: the recorded numbers; the file need not be there.

    Raises:
        InputError: there is no such table.
    """
    if name not in steps:
        raise InputError(f"There is no table {name!r} to reproduce; choose one of {', '.join(steps)}.")
    folder = out.format(name=name)
    for step in steps[name]:
        for line in filled(step, folder, seed):
            place = next((Path(word.partition("=")[2]) for word in line if word.startswith("hydra.run.dir=")), None)
            if place is not None and Run(place).finished:
                log.info("%s is finished: skipped.", place)
                continue
            whole = [*line, *(words if line[0] == "train" else [])]
            log.info("fmsd %s", shlex.join(whole))
            if code := command(whole):
                return code
    compare(recorded, Path(folder) / "report" / "results.csv")
    return 0


def filled(step: str, out: str, seed: str) -> Iterator[list[str]]:
    """A command's words, once or once for each trained run below `out`."""
    runs = [""]
    if "{run}" in step:
        records = {path.parent: Run(path.parent).record() for path in sorted(Path(out).rglob("run.json"))}
        runs = [str(run) for run, record in records.items() if not {"run", "merged"} & record.keys()]
    for run in runs:
        yield [word.format(out=out, seed=seed, run=run) for word in shlex.split(step)]


def compare(recorded: Path, made: Path) -> pl.DataFrame | None:
    """Prints the video AUC of every row beside the recorded one, a mean over its seeds and datasets, and where they are furthest apart.

    Returns:
        Every number with the recorded one; None where there is none that was made alike.
    """
    if not recorded.is_file():
        log.info("There are no recorded numbers in %s to compare with.", recorded)
        return None
    both = _numbers(made).join(_numbers(recorded).rename({"value": "recorded"}), on=KEYS, nulls_equal=True, maintain_order="left")
    if both.is_empty():
        log.info("The numbers in %s were made otherwise (other data, size or settings), so nothing is compared.", recorded)
        return None
    both = both.with_columns(apart=(pl.col("value") - pl.col("recorded")).abs())
    rows = []
    for (run,), own in both.filter(level="video").group_by("run", maintain_order=True):
        furthest = own.row(own["apart"].to_list().index(own["apart"].max()), named=True)
        numbers = (own["value"].mean(), own["recorded"].mean(), furthest["apart"])
        rows.append([str(run), *(f"{number:.3f}" for number in numbers), furthest["dataset"]])
    seeds = ", ".join(map(str, both["seed"].unique().sort()))
    show(
        "Video AUC, mean over test datasets", ["", "now", "recorded", "furthest apart", "on"], rows, f"Seeds {seeds}; recorded in {recorded}", ("on",)
    )
    return both


def _numbers(path: Path) -> pl.DataFrame:
    return read_results(path, ("run", "seed", "stamp")).filter(metric="auc").select(*KEYS, "value")
