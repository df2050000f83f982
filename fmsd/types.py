"""What travels through the network: batches of frames and their predictions."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

PADDING = -1
"""The domain id of a frame that only pads a rank's batch; it is excluded from the loss."""

NO_VIEW = torch.empty(0, dtype=torch.uint8)
"""In place of the strong view of frames that have none: no element."""


class Frames(NamedTuple):
    """A batch of frames.

    Pixels are bytes, a quarter of the memory and bus traffic of floats; the detector scales and
    normalises them.

    Args:
        image: RGB pixels from 0 to 255; or, where the last layer alone is trained, its input, see
            `fmsd.engine.cached_features`.
        label: 0 real, 1 fake.
        domain: domain id, or `PADDING`.
        row: row number in the manifest.
        content: the digest of the stored bytes, see `fmsd.data.content.content_digest`, as a signed
            integer.
        strong: pixels of a second, strongly augmented view, of the shape of `image`; without one no
            element, which torch's collation knows, unlike None.
    """

    image: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch channels"]
    label: Int[Tensor, " batch"]
    domain: Int[Tensor, " batch"]
    row: Int[Tensor, " batch"]
    content: Int[Tensor, " batch"]
    strong: UInt8[Tensor, "*shape"] = NO_VIEW


class Predictions(NamedTuple):
    """One logit for each manifest row; sigmoid(logit) is the probability of fake.

    Args:
        content: the digest of the frame's stored bytes, see `Frames`.
    """

    row: Int[Tensor, " frames"]
    logit: Float[Tensor, " frames"]
    content: Int[Tensor, " frames"]
