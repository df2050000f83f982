"""The frames of each domain in a group of batches."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fmsd.types import PADDING, Frames


class Part(NamedTuple):
    """The frames of a batch that take part in one pass.

    Args:
        weight: 1, or 0 for a frame that only pads a rank's batch.
        strong: the strongly augmented view; None without one.
    """

    image: UInt8[Tensor, "frames 3 height width"] | Float[Tensor, "frames channels"]
    label: Int[Tensor, " frames"]
    weight: Float[Tensor, " frames"]
    strong: UInt8[Tensor, "frames 3 height width"] | None = None


def count_frames(group: Sequence[Frames], domains: int | None) -> Int[Tensor, " passes"]:
    """Number of frames of each domain, or of all together; padding does not count.

    Args:
        domains: number of domains; None to count all frames together.
    """
    domain = torch.cat([batch.domain for batch in group])
    if domains is None:
        return (domain != PADDING).sum()[None]
    return torch.bincount(domain[domain != PADDING], minlength=domains)


def select_domain(batch: Frames, domain_id: int | None) -> Part | None:
    """The frames of a domain, or all frames; None where there are none."""
    device = batch.image.device
    strong = batch.strong if batch.strong.numel() else None
    member = batch.domain != PADDING if domain_id is None else batch.domain == domain_id
    if domain_id is None or member.all():
        weight = member.float().to(device, non_blocking=True)
        return Part(batch.image, batch.label, weight, strong)
    index = member.nonzero().flatten().to(device, non_blocking=True)
    if not len(index):
        return None
    return Part(
        batch.image[index],
        batch.label[index],
        torch.ones(len(index), device=device),
        None if strong is None else strong[index],
    )
