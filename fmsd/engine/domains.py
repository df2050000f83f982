"""The frames of each domain in a group of batches."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from fmsd.types import PADDING, Frames


def count_frames(group: Sequence[Frames], domains: int | None) -> Int[Tensor, " passes"]:
    """Number of frames of each domain, or of all together; padding does not count.

    Args:
        domains: number of domains; None to count all frames together.
    """
    domain = torch.cat([batch.domain for batch in group])
    if domains is None:
        return (domain != PADDING).sum()[None]
    return torch.bincount(domain[domain != PADDING], minlength=domains)


def select_domain(batch: Frames, domain_id: int | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Images, labels and loss weights of a domain's frames, or of all; None where there are none.

    The weight is 1, or 0 for a frame that only pads a rank's batch.
    """
    device = batch.image.device
    if domain_id is None:
        weight = (batch.domain != PADDING).float()
        return batch.image, batch.label, weight.to(device, non_blocking=True)
    member = batch.domain == domain_id
    if member.all():
        return batch.image, batch.label, member.float().to(device, non_blocking=True)
    index = member.nonzero().flatten().to(device, non_blocking=True)
    if not len(index):
        return None
    return batch.image[index], batch.label[index], torch.ones(len(index), device=device)
