"""Reproducing: runs the commands behind a table of experiments/ and compares the results."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.console import print_table
from fmsd.errors import InputError
from fmsd.quoting import hydra_quote
from fmsd.runs.folder import Run, read_results
from fmsd.runs.listing import run_folders

log = logging.getLogger(__name__)

RESULT_KEYS = ["overrides", "seed", "dataset", "level", "metric", "stamp", "settings"]
"""Columns that identify a result: the stamp its protocol, the settings its training."""

FIXED_KEYS = (
    "experiments",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.run.dir",
    "data.train_forgeries",
    "data.left_out",
)
"""Keys that overrides must not change: folders that are looked up, and data that is compared."""


def reproduce(
    name: str,
    steps: Sequence[str],
    values: Mapping[str, str],
    overrides: Sequence[str],
    command: Callable[[Sequence[str]], int],
    recorded: Path,
) -> int:
    """Runs the commands of one table and compares the results with the recorded ones.

    Finished runs are skipped.

    Args:
        name: of the table.
        steps: templates of commands, see `expand_step`.
        values: the values of their placeholders; `out` is the table's folder.
        overrides: for every training.
        command: runs a command and returns its exit code.
        recorded: file of the recorded results; it may be missing.

    Returns:
        The exit code of the first command that failed, or 0.

    Raises:
        InputError: an override would change the table, a training left no run, or the recorded file
            is damaged.
    """
    fixed = {
        _key(argument)
        for step in steps
        if step.startswith("train")
        for argument in shlex.split(step)[1:]
        if "=" in argument
    }.union(FIXED_KEYS)
    if forbidden := [override for override in overrides if _key(override) in fixed]:
        raise InputError(
            f"{', '.join(forbidden)} would change what the table {name} compares, which sets it "
            "itself",
            "leave it out, or train by hand",
        )
    if recorded.is_file():
        _read_aucs(recorded)
    for step in steps:
        for line in expand_step(step, values):
            full = [*line, *(overrides if line[0] == "train" else [])]
            log.info("fmsd %s", shlex.join(full))
            if code := command(full):
                return code
    compare_results(recorded, Path(values["out"]) / "report" / "results.csv")
    return 0


def expand_step(step: str, values: Mapping[str, str]) -> Iterator[list[str]]:
    """Expands a command template; skips commands whose run folder is finished.

    `{NAME}` stands for a value, `{first}` for the first of the `forgeries`. A template with `{run}`
    is expanded for each finished training below `out`, one with `{forgery}` for each of the
    `forgeries`.

    Args:
        step: the template.
        values: the values of placeholders.

    Returns:
        The commands, split into arguments.

    Raises:
        InputError: a template with `{run}` finds no finished training.
    """
    arguments, forgeries = shlex.split(step), values.get("forgeries", "").split(",")
    cases = [{"forgery": name} for name in forgeries] if "{forgery}" in step else [{}]
    if "{run}" in step:
        records = {
            place: Run(place).record() for place in run_folders(Path(values["out"]), "run.json")
        }
        cases = [
            {"run": str(run)}
            for run, record in records.items()
            if Run(run).finished
            and record.get("finished", True)
            and not {"run", "merged", "imported"} & record.keys()
        ]
        if not cases:
            raise InputError(
                f"There is no finished training below {values['out']}",
                "check where the trainings wrote their runs",
            )
    for case in cases:
        line = []
        for argument in arguments:
            key, sign, text = argument.partition("=")
            path = text.startswith(("{out}", "{run}"))
            for name, value in {**values, "first": forgeries[0], **case}.items():
                text = text.replace(f"{{{name}}}", value)
            if key == "hydra.run.dir" and Run(Path(text)).finished:
                log.info("%s is finished: skipped.", text)
                break
            line.append(f"{key}{sign}{hydra_quote(text) if path else text}")
        else:
            yield line


def compare_results(recorded: Path, current: Path) -> pl.DataFrame | None:
    """Prints the video AUC of every row beside the recorded one, and their largest difference.

    AUCs are means over seeds and datasets.

    Args:
        recorded: file of the recorded results.
        current: `results.csv` of the report on the new runs.

    Returns:
        All results in both files; None without any.
    """
    if not recorded.is_file():
        log.info("There are no recorded results in %s to compare with.", recorded)
        return None
    now = _read_aucs(current)
    both = now.join(
        _read_aucs(recorded).rename({"value": "recorded"}).drop("run"),
        on=RESULT_KEYS,
        nulls_equal=True,
        maintain_order="left",
    )
    if both.is_empty():
        log.info(
            "The results in %s were obtained with other data, size or settings, so nothing is "
            "compared.",
            recorded,
        )
        return None
    both = both.with_columns(apart=(pl.col("value") - pl.col("recorded")).abs())
    records: list[dict[str, Any]] = []
    for (run,), part in both.filter(level="video").group_by("run", maintain_order=True):
        furthest = part.row(part["apart"].to_list().index(part["apart"].max()), named=True)
        records.append(
            {
                "run": str(run),
                "now": part["value"].mean(),
                "recorded": part["recorded"].mean(),
                "furthest_apart": furthest["apart"],
                "on": furthest["dataset"],
            }
        )
    rows = [
        [value if isinstance(value, str) else f"{value:.3f}" for value in record.values()]
        for record in records
    ]
    seeds = ", ".join(map(str, both["seed"].unique().sort()))
    note = f"Seeds {seeds}; recorded in {recorded}"
    if missing := len(now) - len(both):
        note += f"; {missing} of {len(now)} results are not recorded"
    print_table(
        "Video AUC, mean over test datasets",
        ["", "now", "recorded", "furthest apart", "on"],
        rows,
        note,
        ("on",),
        name="comparison",
        records=records,
    )
    return both


def _key(override: str) -> str:
    """The key of an override."""
    return override.lstrip("+~").partition("=")[0]


def _read_aucs(path: Path) -> pl.DataFrame:
    """Reads the AUCs from the `results.csv` of a report.

    In earlier ones the overrides that vary stand in the column `run`, as the names of rows.
    """
    table = read_results(path, ("run", "stamp"))
    if "overrides" not in table.columns:
        table = table.with_columns(overrides="run")
    if missing := [key for key in RESULT_KEYS if key not in table.columns]:
        raise InputError(
            f"{path} has no column {missing[0]}, so it is no results.csv of fmsd report",
            "put one in its place",
        )
    return table.filter(metric="auc").select(*RESULT_KEYS, "run", "value")
