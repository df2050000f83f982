"""The Weights & Biases log of a run: its logger, and tables, figures and adapter at its end."""

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
"""Name of the result table."""

SEVERITY = "corruptions/severity"
"""Name of the x axis of robustness curves."""


def build_wandb_logger(
    folder: Path,
    project: str = "fmsd",
    offline: bool | None = None,
    group: str | None = None,
    **options: Any,
) -> WandbLogger:
    """Builds a logger that writes into the run's folder, with tags for its choices.

    Args:
        folder: of the run.
        project: name of the project.
        offline: keep everything on disk for a later `wandb sync`; None for the mode in WANDB_MODE,
            or else offline if no API key is set up.
        group: group of the run; None for the name of its sweep's folder.
        options: arguments of `wandb.init`, e.g. entity, notes.

    Raises:
        InputError: the API key is not accepted.
    """
    mode = os.environ.get("WANDB_MODE") if offline is None else None
    if mode is None:
        mode = "offline" if offline or (offline is None and not logged_in()) else "online"
    if mode == "offline":
        log.info(
            "wandb runs offline; upload later with: wandb sync %s/wandb/offline-run-*",
            shlex.quote(str(folder)),
        )
    # An interrupted run continues under its id, and so does an evaluation.
    if earlier := sorted(folder.glob("wandb/*run-*")):
        options = {"id": earlier[-1].name.rpartition("-")[2], "resume": "allow"} | options
    sweep = configuration.sweep_folder(folder)
    options = {
        "tags": list(configuration.choice_tags(folder).values()),
        "group": group or (sweep and sweep.name),
    } | options
    return WandbLogger(project=project, save_dir=folder, mode=mode, name=folder.name, **options)


def logged_in() -> bool:
    """Whether an API key is set up.

    Raises:
        InputError: the key is not accepted, or the service cannot be reached.
    """
    try:
        return wandb.login(prompt=False)
    except Exception as error:
        raise InputError(
            f"Weights & Biases does not accept the key ({reason(error).rstrip('.')})",
            "correct it by wandb login, or work offline with WANDB_MODE=offline",
        ) from error


def log_artifacts(
    logger: WandbLogger,
    run: Run,
    stamps: Mapping[str, Mapping[str, str]],
    rocs: Mapping[str, pl.DataFrame],
    prefix: str,
) -> None:
    """Logs stamps, figures and ROC curves; of a training also result table and adapter.

    Args:
        stamps: by dataset and level.
        rocs: by dataset, with the columns level, false_positive_rate and true_positive_rate.
        prefix: prefix of the names of figures.
    """
    board = logger.experiment
    board.summary.update(
        {
            f"stamp/{dataset}/{level}": stamp
            for dataset, levels in stamps.items()
            for level, stamp in levels.items()
        }
    )
    pictures = {
        f"{prefix}{path.stem}": wandb.Image(str(path)) for path in sorted(run.folder.glob("*.png"))
    }
    board.log(
        pictures
        | {f"roc/{dataset}": roc_chart(dataset, points) for dataset, points in rocs.items()}
    )
    if (run.folder / "adapter.safetensors").is_file():  # a training
        board.log({RESULTS: wandb_table(run.results())})
        adapter = wandb.Artifact(
            f"adapter-{board.id}", type="adapter", metadata=configuration.choice_tags(run.folder)
        )
        for name in ("adapter.safetensors", "adapter.json"):
            adapter.add_file(str(run.folder / name))
        board.log_artifact(adapter)


def log_robustness(logger: WandbLogger, curves: Mapping[int, Mapping[str, float]]) -> None:
    """Logs robustness curves with the severity as their x axis.

    Args:
        curves: values by severity and name.
    """
    board = logger.experiment
    for name in {name for values in curves.values() for name in values}:
        board.define_metric(name, step_metric=SEVERITY)
    for severity, values in curves.items():
        board.log({**values, SEVERITY: severity})


def wandb_table(rows: pl.DataFrame) -> wandb.Table:
    """A table as Weights & Biases shows it."""
    columns: list[str | int] = [*rows.columns]
    return wandb.Table(columns=columns, data=[list(row) for row in rows.rows()])


def roc_chart(dataset: str, points: pl.DataFrame) -> Any:
    """A chart of a dataset's ROC curves, a line per level.

    Args:
        points: columns level, false_positive_rate and true_positive_rate.
    """
    return wandb.plot.line(
        wandb_table(points),
        "false_positive_rate",
        "true_positive_rate",
        stroke="level",
        title=f"ROC, {dataset}",
    )


def close() -> None:
    """Finishes the open run, if any: the next job of a sweep must not continue it."""
    if wandb.run is not None:
        wandb.finish()
