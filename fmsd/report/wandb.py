"""The Weights & Biases dashboard of a run: curves while it trains, per-dataset AUC and the result table at its end."""

import logging
import os
from pathlib import Path
from typing import Any

import polars as pl
import wandb
from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)


def logger(folder: Path, project: str = "fmsd", offline: bool | None = None, **options: Any) -> WandbLogger:
    """A logger that writes into the run's folder.

    Args:
        offline: keep everything on disk for a later `wandb sync`; None for what WANDB_MODE says, else offline exactly when no API key is set up.
        options: passed to `wandb.init`, e.g. entity, group, tags.
    """
    mode = os.environ.get("WANDB_MODE") if offline is None else None
    if mode is None:
        mode = "offline" if offline or (offline is None and not wandb.login(prompt=False)) else "online"
    if mode == "offline":
        log.info("wandb runs offline; upload later with: wandb sync %s/wandb/offline-run-*", folder)
    if begun := sorted(folder.glob("wandb/*run-*")):  # an interrupted run goes on under its id
        options = {"id": begun[-1].name.rpartition("-")[2], "resume": "allow"} | options
    return WandbLogger(project=project, save_dir=folder, mode=mode, name=folder.name, **options)


def publish(logger: WandbLogger, results: pl.DataFrame, folder: Path) -> None:
    """Logs each number as `test/DATASET/LEVEL_METRIC`, all of them as one table, and the pictures in the run's folder."""
    run = logger.experiment
    run.summary.update({f"test/{row['dataset']}/{row['level']}_{row['metric']}": row["value"] for row in results.iter_rows(named=True)})
    run.log({"results": wandb.Table(columns=list[str | int](results.columns), data=[list(row) for row in results.rows()])})
    run.log({path.stem: wandb.Image(str(path)) for path in folder.glob("*.png")})


def close() -> None:
    """Ends the dashboard's run, also that of a job that failed: the next job of a sweep must not continue it."""
    if wandb.run is not None:
        wandb.finish()
