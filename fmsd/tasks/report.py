"""Reporting: many runs as one table, rows what was varied, columns the test datasets."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.metrics.table import LEVELS, markdown
from fmsd.report.console import show
from fmsd.report.run import Run, write
from fmsd.types import InputError


def report(runs: Path, metric: str = "auc", out: Path | None = None) -> pl.DataFrame:
    """Prints a table per level over all finished runs below a folder: mean over seeds, with the standard deviation where there are several.

    Runs are the same row exactly when their overrides differ in nothing but the seed.

    Args:
        out: folder for `results.csv` (tidy, every number of every run) and `results.md`; None to only print.

    Raises:
        InputError: no finished run, or an unknown metric.
    """
    if out is not None and (out / "run.json").exists():
        raise InputError(f"out={out} is the folder of a run, whose results.csv would be lost; give another folder.")
    tested = [Run(path.parent) for path in sorted(runs.rglob("results.csv")) if (path.parent / "run.json").is_file()]
    found = [run for run in tested if "run" not in run.record()]  # a later evaluation is not another training
    if not found:
        raise InputError(f"There is no finished run below {runs}; give a folder of runs as runs=FOLDER.")
    named = {run: _settings(run.record()["overrides"]) for run in found}
    common = set.intersection(*map(set, named.values()))
    labels = {run: " ".join(part for part in settings if part not in common) or "run" for run, settings in named.items()}
    twins: dict[tuple[object, ...], Run] = {}
    for run, settings in named.items():
        twin = twins.setdefault((*settings, run.record()["seed"]), run)
        if twin is not run:
            raise InputError(f"{twin.folder} and {run.folder} are the same run twice (equal overrides and seed); keep one of them below runs=FOLDER.")
    tidy = pl.concat([run.results().with_columns(run=pl.lit(labels[run]), seed=pl.lit(run.record()["seed"])) for run in found])
    if metric not in tidy["metric"]:
        raise InputError(f"metric={metric} is unknown; choose one of {', '.join(tidy['metric'].unique().sort())}.")
    datasets = tidy["dataset"].unique(maintain_order=True).to_list()
    pages = []
    for level in LEVELS:
        header, rows = ["", *datasets], table(tidy.filter(metric=metric, level=level), datasets)
        show(f"{metric} per {level}", header, rows, f"{len(found)} runs below {runs}")
        pages.append(f"## {metric} per {level}\n\n{markdown(header, rows)}")
    if out is not None:
        write(out / "results.csv", tidy.write_csv())
        write(out / "results.md", "\n".join(pages))
        print(f"The tables lie in {out}")
    return tidy


def table(tidy: pl.DataFrame, datasets: Sequence[str]) -> list[list[str]]:
    """A row per label: the mean over seeds of each dataset's value, and its standard deviation where there are several seeds."""
    cells = tidy.group_by("run", "dataset", maintain_order=True).agg(pl.col("value").mean().alias("mean"), pl.col("value").std().alias("deviation"))
    rows = []
    for (label,), part in cells.group_by("run", maintain_order=True):
        texts = {
            row["dataset"]: f"{row['mean']:.3f}" + (f" ± {row['deviation']:.3f}" if row["deviation"] is not None else "") for row in part.to_dicts()
        }
        rows.append([str(label), *(texts.get(dataset, "-") for dataset in datasets)])
    return rows


def _settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """A run's overrides without its seed, in one order."""
    return tuple(sorted(override for override in overrides if not override.lstrip("+").startswith("seed=")))
