"""Predictions: scores of all batches and processes, joined with the manifest.

The last bits of a logit depend on the number of frames in its batch: other sizes take other
kernels, which add in another order. Ranked, these bits would tell frames apart that are the same
image. So frames with equal files get one logit, and a dataset whose logits differ in nothing but
such bits gets one for all. No other logit is changed. Both are done here, before anything is
computed from logits, and predictions are written so: training, `fmsd evaluate` and `fmsd report`
rank the same values, and so does everyone who reads the files.
"""

from collections.abc import Sequence

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fmsd.data.content import content_digest
from fmsd.data.frame import DIGEST_COLUMNS
from fmsd.data.loading.image import read_bytes
from fmsd.data.manifest import Manifest
from fmsd.data.remote import FetchError
from fmsd.engine.distributed import all_gather_lists
from fmsd.errors import InputError
from fmsd.outcomes import SCORED, UNREADABLE
from fmsd.types import Predictions

FLOAT32_NOISE = 2.0**-18
"""How far logits of one image differ between batches in float32, at most.

Measured with batches of 1 to 24 frames on a CPU: up to 5e-7 for a ViT and a ResNet with logits of
size 1; this is eight times as much. It is a share of the largest absolute logit, and an absolute
difference where all are below 1: a logit near 0 is a sum of products that are not.
"""

NOISE = {"bf16-mixed": torch.finfo(torch.bfloat16).eps, "16-mixed": torch.finfo(torch.float16).eps}
"""The same under autocast, by precision, as a share of the largest absolute logit.

It is the distance of neighbouring numbers of the format from 1 on, 2^-7 or 2^-10: a logit in this
format whose last bit differs is not further away, and a smaller share would not cover even that.
"""


def gather_predictions(batches: Sequence[Predictions]) -> Predictions:
    """The scores of all batches of all processes in row order, each row once."""
    parts = all_gather_lists(list(batches))
    scores = Predictions(*(torch.cat(values) for values in zip(*parts, strict=True)))
    order = torch.argsort(scores.row, stable=True)
    row = scores.row[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return Predictions(*(values[order][first] for values in scores))


def with_logits(
    manifest: Manifest, scores: Predictions, precision: str, *, clean: bool = True
) -> pl.DataFrame:
    """The scored rows of a manifest with their `logit` and the digest of their `content`.

    Args:
        precision: of the forward pass, as Lightning names it: `32-true`, `bf16-mixed`, ...
        clean: the images are those of the files. Corruptions draw other random numbers for every
            path, so frames with equal files are then different images.
    """
    logit = tie_equal_files(scores.logit, scores.content) if clean else scores.logit
    tested = manifest.table.select(DIGEST_COLUMNS)[scores.row.numpy()]
    return tested.with_columns(
        logit=pl.Series(flatten_noise(logit, precision).numpy()),
        content=pl.Series(scores.content.numpy()).reinterpret(signed=False),
    )


def tie_equal_files(
    logit: Float[Tensor, " frames"], content: Int[Tensor, " frames"]
) -> Float[Tensor, " frames"]:
    """Logits with one value for all frames of equal content: the lower median of theirs."""
    table = pl.DataFrame({"logit": logit.numpy(), "content": content.numpy()})
    median = pl.col("logit").quantile(0.5, "lower").over("content")
    return torch.from_numpy(table.select(median).to_series().to_numpy(writable=True))


def flatten_noise(logit: Float[Tensor, " frames"], precision: str) -> Float[Tensor, " frames"]:
    """Logits of one dataset as they are; their median for all if they differ in noise alone.

    That is, if the largest and the smallest are no further apart than the noise of one forward
    pass: `NOISE` or `FLOAT32_NOISE` times the largest absolute logit, and at least `FLOAT32_NOISE`.

    Args:
        precision: as Lightning names it.
    """
    share = NOISE.get(precision, FLOAT32_NOISE)
    noise = max(share * float(logit.abs().max()), FLOAT32_NOISE)
    if float(logit.max()) - float(logit.min()) <= noise:
        return torch.full_like(logit, float(logit.median()))
    return logit


def with_expected(
    predictions: pl.DataFrame, manifest: Manifest, absent: pl.DataFrame
) -> pl.DataFrame:
    """Predictions with a row per expected frame, see `fmsd.metrics.coverage`.

    Where every frame has a score they are returned as they are.

    Args:
        predictions: of a dataset's frames, in the order of the manifest; frames that are not among
            them could not be decoded. An `outcome` says why others have no score.
        manifest: the frames of the dataset.
        absent: its videos without a frame, see `fmsd.data.absent_videos.load_absent`.
    """
    if predictions.height < len(manifest):
        columns = [name for name in predictions.columns if name not in DIGEST_COLUMNS[1:]]
        predictions = manifest.table.select(DIGEST_COLUMNS).join(
            predictions.select(columns), on="path", how="left", maintain_order="left"
        )
        unread = predictions["logit"].is_null()
        files = pl.Series(manifest.files()).filter(unread)
        contents = pl.DataFrame(
            {
                "path": predictions["path"].filter(unread),
                "content": pl.Series([stored_content(file) for file in files], dtype=pl.UInt64),
            }
        )
        predictions = predictions.update(contents, on="path", how="left").with_columns(
            outcome=pl.when(unread).then(pl.lit(UNREADABLE)).otherwise(pl.lit(SCORED))
        )
    if absent.is_empty():
        return predictions
    if "outcome" not in predictions.columns:
        predictions = predictions.with_columns(outcome=pl.lit(SCORED))
    return pl.concat([predictions, absent], how="diagonal")


def stored_content(file: str) -> int | None:
    """The digest of the bytes of an image; None where they cannot be read."""
    try:
        return content_digest(read_bytes(file))
    except FetchError:
        raise
    except InputError:
        return None
