"""The Weights & Biases dashboard of a run: curves while it trains; numbers, tables, ROC curves, pictures and the adapter at its end."""

import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import wandb
from lightning.pytorch.loggers import WandbLogger

from fmsd.errors import InputError, reason
from fmsd.runs import configuration
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)

RESULTS = "results"
"""The result table."""

SEVERITY = "corruptions/severity"
"""What robustness curves are drawn over."""


def build_wandb_logger(
    folder: Path,
    project: str = "fmsd",
    offline: bool | None = None,
    group: str | None = None,
    **options: Any,
) -> WandbLogger:
    """A logger that writes into the run's folder; its tags are the run's method, data, backbone and wrapper.

    Args:
        offline: keep everything on disk for a later `wandb sync`; None for what WANDB_MODE says,
            else offline exactly when no API key is set up.
        group: what the run stands together with; None for the name of its sweep's folder.
        options: passed to `wandb.init`, e.g. entity, notes.

    Raises:
        InputError: there is a key, and it is not accepted.
    """
    mode = os.environ.get("WANDB_MODE") if offline is None else None
    if mode is None:
        mode = "offline" if offline or (offline is None and not logged_in()) else "online"
    if mode == "offline":
        log.info(
            "wandb runs offline; upload later with: wandb sync %s/wandb/offline-run-*",
            shlex.quote(str(folder)),
        )
    if begun := sorted(
        folder.glob("wandb/*run-*")
    ):  # an interrupted run goes on under its id, and so does its evaluation
        options = {"id": begun[-1].name.rpartition("-")[2], "resume": "allow"} | options
    sweep = configuration.sweep_folder(folder)
    options = {
        "tags": list(configuration.choice_tags(folder).values()),
        "group": group or (sweep and sweep.name),
    } | options
    return WandbLogger(project=project, save_dir=folder, mode=mode, name=folder.name, **options)


def logged_in() -> bool:
    """Whether there is a key.

    Raises:
        InputError: it is not accepted, or there is nobody to ask.
    """
    try:
        return wandb.login(prompt=False)
    except Exception as error:
        told = reason(error).rstrip(".")
        raise InputError(
            f"Weights & Biases does not take the key ({told})",
            "correct it by wandb login, or work offline with WANDB_MODE=offline",
        ) from error


def log_artifacts(
    logger: WandbLogger,
    run: Run,
    stamps: Mapping[str, Mapping[str, str]],
    rocs: Mapping[str, pl.DataFrame],
    place: str,
) -> None:
    """Gives the dashboard what a run found beside its numbers: tables, ROC curves, pictures and the adapter.

    Args:
        stamps: of every dataset and level.
        rocs: of every dataset, with the columns level, false_positive_rate and true_positive_rate.
        place: what the names of pictures begin with.
    """
    board = logger.experiment
    board.summary.update(
        {
            f"stamp/{dataset}/{level}": stamp
            for dataset, own in stamps.items()
            for level, stamp in own.items()
        }
    )
    pictures = {
        f"{place}{path.stem}": wandb.Image(str(path)) for path in sorted(run.folder.glob("*.png"))
    }
    board.log(
        pictures
        | {f"roc/{dataset}": roc_chart(dataset, points) for dataset, points in rocs.items()}
    )
    if (run.folder / "adapter.safetensors").is_file():  # an evaluation has neither of these
        board.log({RESULTS: wandb_table(run.results())})
        adapter = wandb.Artifact(
            f"adapter-{board.id}", type="adapter", metadata=configuration.choice_tags(run.folder)
        )
        for name in ("adapter.safetensors", "adapter.json"):
            adapter.add_file(str(run.folder / name))
        board.log_artifact(adapter)


def log_robustness(logger: WandbLogger, curves: Mapping[int, Mapping[str, float]]) -> None:
    """Draws numbers over the severity of corruptions: curves by severity, then by name."""
    board = logger.experiment
    for name in {name for numbers in curves.values() for name in numbers}:
        board.define_metric(name, step_metric=SEVERITY)
    for severity, numbers in curves.items():
        board.log({**numbers, SEVERITY: severity})


def wandb_table(rows: pl.DataFrame) -> wandb.Table:
    """A table as the dashboard shows it."""
    return wandb.Table(
        columns=list[str | int](rows.columns), data=[list(row) for row in rows.rows()]
    )


def roc_chart(dataset: str, points: pl.DataFrame) -> Any:
    """A chart of a dataset's ROC curves, one line a level."""
    return wandb.plot.line(
        wandb_table(points),
        "false_positive_rate",
        "true_positive_rate",
        stroke="level",
        title=f"ROC, {dataset}",
    )


def close() -> None:
    """Ends the dashboard's run, also that of a job that failed: the next job of a sweep must not continue it."""
    if wandb.run is not None:
        wandb.finish()
