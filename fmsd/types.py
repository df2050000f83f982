"""What travels through the network: batches of frames and their predictions."""

from typing import NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

PADDING = -1
"""The domain id of a frame that only pads a rank's batch; it is excluded from the loss."""


class Frames(NamedTuple):
    """A batch of frames.

    Pixels are bytes, a quarter of the memory and bus traffic of floats; the detector scales and
    normalises them.

    Args:
        image: RGB pixels from 0 to 255.
        label: 0 real, 1 fake.
        domain: domain id, or `PADDING`.
        row: row number in the manifest.
        content: the digest of the stored bytes, see `fmsd.data.content.content_digest`, as a signed
            integer.
    """

    image: UInt8[Tensor, "batch 3 height width"]
    label: Int[Tensor, " batch"]
    domain: Int[Tensor, " batch"]
    row: Int[Tensor, " batch"]
    content: Int[Tensor, " batch"]


class Predictions(NamedTuple):
    """One logit for each manifest row; sigmoid(logit) is the probability of fake.

    Args:
        content: the digest of the frame's stored bytes, see `Frames`.
    """

    row: Int[Tensor, " frames"]
    logit: Float[Tensor, " frames"]
    content: Int[Tensor, " frames"]
