"""A grid search over a merger's coefficients, on validation data."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmsd.engine.datamodule import DataModule
from fmsd.engine.scorer import Scorer
from fmsd.engine.scoring import predict
from fmsd.engine.trainer import Trainer
from fmsd.errors import InputError
from fmsd.merge.task_vectors import Merger, Specialists, merge_tensors
from fmsd.metrics.table import compute_results
from fmsd.models.detector import Detector

log = logging.getLogger(__name__)

FIXED, SEARCH = "fixed", "search"
"""Selection rules of a merge in result tables: coefficients given, or best on validation data."""


def grid_combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values of a grid; none of an empty grid."""
    if not grid:
        return []
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def with_coefficients(merger: Merger, values: Mapping[str, Any]) -> Merger:
    """The merger with other coefficients.

    Raises:
        InputError: a coefficient is unknown or its value is out of range.
    """
    known = [field.name for field in dataclasses.fields(merger)]  # pyright: ignore[reportArgumentType]
    if unknown := [name for name in values if name not in known]:
        raise InputError(
            f"search names {unknown[0]!r}, and {type(merger).__name__} has "
            f"{', '.join(known) or 'no coefficients'}",
            "correct search=",
        )
    return dataclasses.replace(merger, **values)  # pyright: ignore[reportArgumentType, reportCallIssue]


def search_coefficients(
    candidates: Sequence[Mapping[str, Any]],
    specialists: Specialists,
    merger: Merger,
    model: Detector,
    data: DataModule,
    trainer: Trainer,
) -> dict[str, Any]:
    """Scores the merge of every candidate by its mean video AUC over the validation datasets.

    Args:
        candidates: values of the merger's coefficients.
        model: the network to score; its weights are overwritten.

    Returns:
        The search's record: what was tried, and what was chosen (the first of equal candidates).
    """
    manifest, tried = data.splits.validation, []
    for values in candidates:
        merged = merge_tensors(specialists, with_coefficients(merger, values))
        load_tensors(model, ((name, tensor) for name, tensor, _ in merged))
        table = compute_results(
            predict(trainer, Scorer(model), data.validation_loader(), manifest),
            SEARCH,
            video_score=data.selection.video_score,
        )
        auc = table.filter(level="video", metric="auc")["value"].mean()
        tried.append({**values, "value": auc})
        log.info(
            "%s: video AUC %.4f on validation data.",
            " ".join(f"{name}={value}" for name, value in values.items()),
            auc,
        )
    best = max(tried, key=lambda entry: entry["value"])
    chosen = {name: value for name, value in best.items() if name != "value"}
    log.info(
        "Chosen on the validation split of %s, among %d: %s.",
        ", ".join(data.selection.train),
        len(tried),
        chosen,
    )
    return {
        "on": list(data.selection.train),
        "metric": "mean video AUC over the datasets",
        "tried": tried,
        "chosen": chosen,
        "best": best["value"],
    }


@torch.no_grad()
def load_tensors(model: Detector, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copies tensors into a plain backbone, in place."""
    state = model.backbone.state_dict()
    for name, tensor in tensors:
        state[name].copy_(tensor)
