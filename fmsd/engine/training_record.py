"""The record of a trained run: its request, its cost, and what chose its weights."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmsd.data import description
from fmsd.engine.chosen_weights import Chosen
from fmsd.engine.model_selection import video_auc
from fmsd.engine.scoring import manifest_records
from fmsd.engine.trainer import gpu_name, peak_gpu_memory
from fmsd.engine.training import Ending, Plan, Request, Session
from fmsd.metrics.table import as_one_dataset, best_thresholds
from fmsd.runs.provenance import provenance


def training_record(
    session: Session,
    request: Request,
    plan: Plan,
    ending: Ending,
    chosen: Chosen,
    validation: pl.DataFrame | None,
) -> dict[str, Any]:
    """The record of a run.

    Args:
        chosen: when the chosen weights were reached.
        validation: their predictions on the validation split; None where training was interrupted.
    """
    setup = session.setup
    data, trainer = setup.data, setup.trainer
    selection = data.selection
    return provenance(request.command) | {
        "overrides": list(request.overrides),
        "choices": dict(request.choices),
        "seed": plan.seed,
        "selection": plan.select,
        "monitor": setup.choice.monitor,
        "monitored": monitored_value(session, validation),
        "thresholds": None
        if validation is None
        else best_thresholds(validation, selection.video_score),
        "origin": setup.facts,
        "stamps": setup.stamps,
        "epoch": chosen.epoch,
        "steps": chosen.steps,
        "finished": ending.finished,
        "stopped": "patience" if ending.stopped_early else None,
        "resumed": setup.checkpoint is not None,
        "trainable": session.adapted.trainable,
        "parameters": session.adapted.parameters,
        "device": str(trainer.strategy.root_device),
        "accelerator": gpu_name(trainer),
        "peak_memory": peak_gpu_memory(trainer),
        "processes": trainer.world_size,
        "seconds": round(session.recovery.seconds, 1),
        "manifests": manifest_part(session),
        "skipped": setup.data.skipped,
    }


def manifest_part(session: Session) -> Mapping[str, Any]:
    """Digests and sizes of the frames that were trained and tested on."""
    return {
        "train": description.describe_datasets(session.setup.data.splits.both),
        "test": manifest_records(session.setup.data.tests),
    }


def monitored_value(session: Session, validation: pl.DataFrame | None) -> float | None:
    """The value that chose the weights.

    Where nothing chose them, their video AUC on the validation split, if it was scored.
    """
    if session.setup.choice.best is not None:
        return session.setup.choice.best_value
    if validation is None:
        return None
    return video_auc(as_one_dataset(validation), session.setup.data.selection.video_score)
