"""Reporting: many runs as one table, rows what was varied, columns the test datasets or the forgeries in them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.metrics.table import LEVELS, by_domain, markdown
from fmsd.report import merging
from fmsd.report.console import show
from fmsd.report.run import Run, write
from fmsd.types import InputError, reason

FILES = {"dataset": "results", "domain": "domains"}
"""What may be a column of the tables, and how the files are called then."""


def report(runs: Path, metric: str = "auc", out: Path | None = None, by: str = "dataset") -> pl.DataFrame:
    """Prints a table per level over all finished runs below a folder: mean over seeds, with the standard deviation where there are several.

    Runs are the same row exactly when their overrides differ in nothing but the seed.

    Args:
        out: folder for `results.csv` (tidy, every number of every run) and `results.md`; None to only print. By domain the files are
            called `domains`, and `domains.png` shows the table of videos.
        by: columns are test datasets (`dataset`), or the AUC of each forgery in them (`domain`), computed from the runs' predictions.

    Raises:
        InputError: no finished run, an unknown metric, or predictions that cannot be used.
    """
    if by not in FILES:
        raise InputError(f"by={by} is unknown; choose one of {', '.join(FILES)}.")
    if by == "domain" and metric != "auc":
        raise InputError(f"metric={metric} is not told by domain, only the AUC is; leave metric out, or set by=dataset.")
    if by == "dataset" and out is not None and (out / "run.json").exists():
        raise InputError(f"out={out} is the folder of a run, whose results.csv would be lost; give another folder.")
    labels = labelled(runs)
    tidy = pl.concat(
        [
            (run.results() if by == "dataset" else domains(run)).with_columns(run=pl.lit(label), seed=pl.lit(run.record()["seed"], pl.Int64))
            for run, label in labels.items()
        ]
    )
    if by == "dataset" and metric not in tidy["metric"]:
        raise InputError(f"metric={metric} is unknown; choose one of {', '.join(tidy['metric'].unique().sort())}.")
    shown = tidy.filter(metric=metric) if by == "dataset" else tidy.with_columns(dataset=pl.format("{}/{}", "dataset", "domain"))
    columns = shown["dataset"].unique(maintain_order=True).to_list()
    pages = []
    for level in LEVELS:
        header, rows = ["", *columns], table(means(shown.filter(level=level)), columns, flagged=metric == "auc")
        show(f"{metric} per {level}", header, rows, f"{len(labels)} runs below {runs}")
        pages.append(f"## {metric} per {level}\n\n{markdown(header, rows)}")
    if out is not None:
        write(out / f"{FILES[by]}.csv", tidy.write_csv())
        write(out / f"{FILES[by]}.md", "\n".join(pages))
        if by == "domain":
            cells = means(shown.filter(level="video")).pivot("dataset", index="run", values="mean", maintain_order=True)
            merging.domain_matrix(cells["run"].to_list(), columns, cells.select(columns).to_numpy(), out / f"{FILES[by]}.png")
        print(f"The tables lie in {out}")
    return tidy


def labelled(runs: Path) -> dict[Run, str]:
    """The finished runs below a folder, each with what was varied in it besides the seed.

    Raises:
        InputError: there is none, or the same one twice.
    """
    tested = [Run(path.parent) for path in sorted(runs.rglob("results.csv")) if (path.parent / "run.json").is_file()]
    found = [run for run in tested if "run" not in run.record()]  # a later evaluation is not another training
    if not found:
        raise InputError(f"There is no finished run below {runs}; give a folder of runs as runs=FOLDER.")
    named = {run: _settings(run.record()["overrides"]) for run in found}
    common = set.intersection(*map(set, named.values()))
    twins: dict[tuple[object, ...], Run] = {}
    for run, settings in named.items():
        twin = twins.setdefault((*settings, run.record()["seed"]), run)
        if twin is not run:
            raise InputError(f"{twin.folder} and {run.folder} are the same run twice (equal overrides and seed); keep one of them below runs=FOLDER.")
    return {run: " ".join(part for part in settings if part not in common) or "run" for run, settings in named.items()}


def domains(run: Run) -> pl.DataFrame:
    """The AUC of every forgery a run was tested on, from its predictions alone.

    Raises:
        InputError: the run has no predictions, or they cannot be read.
    """
    files = sorted((run.folder / "predictions").glob("*.parquet"))
    if not files:
        raise InputError(f"{run.folder} has no predictions/DATASET.parquet to compute by=domain from; put them back, or set by=dataset.")
    found = []
    for path in files:
        try:
            found.append(by_domain(pl.read_parquet(path, columns=["dataset", "domain", "video", "label", "logit"])))
        except pl.exceptions.PolarsError as error:
            raise InputError(f"{path} does not hold a run's predictions ({reason(error)}); put them back, or set by=dataset.") from error
    return pl.concat(found)


def means(tidy: pl.DataFrame) -> pl.DataFrame:
    """A row per label and column of the table: mean and standard deviation over the seeds."""
    return tidy.group_by("run", "dataset", maintain_order=True).agg(pl.col("value").mean().alias("mean"), pl.col("value").std().alias("deviation"))


def table(cells: pl.DataFrame, columns: Sequence[str], flagged: bool) -> list[list[str]]:
    """A row per label: each column's mean, and its standard deviation where there are several seeds.

    Args:
        flagged: mark a mean below 0.5 as inverted.
    """
    rows = []
    for (label,), part in cells.group_by("run", maintain_order=True):
        texts = {
            row["dataset"]: f"{row['mean']:.3f}"
            + (f" ± {row['deviation']:.3f}" if row["deviation"] is not None else "")
            + (" (inverted)" if flagged and row["mean"] < 0.5 else "")
            for row in part.to_dicts()
        }
        rows.append([str(label), *(texts.get(column, "-") for column in columns)])
    return rows


def _settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """A run's overrides without its seed, in one order."""
    return tuple(sorted(override for override in overrides if not override.lstrip("+").startswith("seed=")))
