"""The record of a trained run: its request, its cost, and what chose its weights."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmsd.data import description
from fmsd.engine.chosen_weights import Chosen
from fmsd.engine.model_selection import video_auc
from fmsd.engine.scoring import manifest_records
from fmsd.engine.session import Ending, Session
from fmsd.engine.trainer import gpu_name, peak_gpu_memory
from fmsd.metrics.table import as_one_dataset
from fmsd.redaction import redact_words
from fmsd.runs.provenance import provenance


def training_record(
    session: Session,
    ending: Ending,
    chosen: Chosen,
    monitored: float | None,
    thresholds: Mapping[str, float] | None,
) -> dict[str, Any]:
    """The record of a run.

    Args:
        chosen: when the chosen weights were reached.
        monitored: the value that chose them.
        thresholds: by level, those chosen on validation data; None where training was interrupted.
    """
    setup = session.setup
    request, plan, trainer = setup.request, setup.plan, setup.trainer
    return provenance(request.command) | {
        "overrides": redact_words(request.overrides),
        "choices": dict(request.choices),
        "label": request.label and redact_words([request.label])[0],
        "seed": plan.seed,
        "selection": plan.select,
        "monitor": setup.choice.monitor,
        "monitored": monitored,
        "thresholds": thresholds,
        "origin": setup.facts,
        "stamps": setup.stamps,
        "overlap": setup.overlap,
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
        "suite": setup.data.selection.suite,
        "skipped": setup.data.skipped,
    }


def manifest_part(session: Session) -> Mapping[str, Any]:
    """Digests and sizes of the frames that were trained and tested on."""
    return {
        "train": description.describe_datasets(session.setup.data.splits.both),
        "test": manifest_records(session.setup.data.tests),
    }


def monitored_value(session: Session, validation: pl.DataFrame) -> float | None:
    """The value that chose the weights.

    Where nothing chose them, their video AUC on the validation split.

    Args:
        validation: predictions of the chosen weights on the validation split.
    """
    if session.setup.choice.best is not None:
        return session.setup.choice.best_value
    return video_auc(as_one_dataset(validation), session.setup.data.selection.video_score)
