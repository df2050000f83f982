"""Predictions: scores of all batches and processes, rounded, joined with the manifest.

The last bits of a logit depend on the number of frames in its batch: other sizes take other
kernels, which add in another order. Ranked, these bits would tell frames apart that are the same
image. So logits are rounded here, before anything is computed from them, and predictions are
written rounded: training, `fmsd evaluate` and `fmsd report` rank the same values, and so does
everyone who reads the files.
"""

from collections.abc import Sequence

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fmsd.data.manifest import Manifest
from fmsd.engine.distributed import all_gather_lists
from fmsd.types import Predictions

FULL_PRECISIONS = ("32-true", "64-true")
"""Precisions whose forward pass is in float32 or better, as Lightning names them."""

FLOAT32_STEP = 2.0**-14
"""The step of logits in float32: a probability then changes by at most 0.000008.

Between batches of 1 to 24 frames the logits of a ViT and a ResNet, of size 1, differ by up to
5e-7 on a CPU; larger logits, deeper networks and the kernels of a GPU give a multiple of it.
"""

LOW_PRECISION_STEP = 2.0**-7
"""The step of logits under autocast: the distance of neighbouring bfloat16 numbers above 1."""


def gather_predictions(batches: Sequence[Predictions]) -> Predictions:
    """The scores of all batches of all processes in row order, each row once."""
    parts = all_gather_lists(list(batches))
    scores = Predictions(*(torch.cat(values) for values in zip(*parts, strict=True)))
    order = torch.argsort(scores.row, stable=True)
    row = scores.row[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return Predictions(*(values[order][first] for values in scores))


def with_logits(manifest: Manifest, scores: Predictions, precision: str) -> pl.DataFrame:
    """The scored rows of a manifest with their `logit`, rounded, and the digest of their `content`.

    Args:
        precision: of the forward pass, as Lightning names it.
    """
    logit = round_logits(scores.logit, precision)
    return manifest.table[scores.row.numpy()].with_columns(
        logit=pl.Series(logit.numpy()),
        content=pl.Series(scores.content.numpy()).reinterpret(signed=False),
    )


def round_logits(logit: Float[Tensor, " frames"], precision: str) -> Float[Tensor, " frames"]:
    """Logits of one dataset as far as the precision of the forward pass carries them.

    A logit is a sum of many products, so its error depends on their size, not on its own: it is
    rounded to a multiple of `FLOAT32_STEP` or `LOW_PRECISION_STEP`, not to a number of digits. If
    all logits lie within one step of each other, relative to the largest, they differ in nothing
    but errors, and all become their median.

    Args:
        precision: as Lightning names it: `32-true`, `bf16-mixed`, ...
    """
    step = FLOAT32_STEP if precision in FULL_PRECISIONS else LOW_PRECISION_STEP
    rounded = (logit / step).round() * step
    tolerance = step * max(1.0, float(rounded.abs().max()))
    if rounded.max() - rounded.min() <= tolerance:
        return torch.full_like(rounded, float(rounded.median()))
    return rounded
