"""Predictions: scores of all batches and processes, joined with the manifest."""

from collections.abc import Sequence

import polars as pl
import torch

from fmsd.data.manifest import Manifest
from fmsd.engine.distributed import all_gather_lists
from fmsd.types import Predictions


def gather_predictions(batches: Sequence[Predictions]) -> Predictions:
    """The scores of all batches of all processes in row order, each row once."""
    parts = all_gather_lists(list(batches))
    scores = Predictions(*(torch.cat(values) for values in zip(*parts, strict=True)))
    order = torch.argsort(scores.row, stable=True)
    row = scores.row[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return Predictions(*(values[order][first] for values in scores))


def with_logits(manifest: Manifest, scores: Predictions) -> pl.DataFrame:
    """The scored rows of a manifest with their `logit` and the digest of their `content`."""
    return manifest.table[scores.row.numpy()].with_columns(
        logit=pl.Series(scores.logit.numpy()),
        content=pl.Series(scores.content.numpy()).reinterpret(signed=False),
    )
