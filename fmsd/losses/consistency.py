"""Weak-to-strong consistency: a strongly augmented view is scored as a weakly augmented one is.

As in BiasConsist (Dinh et al., 2026), whose repository describes it; without a temperature, which
is 1 there.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def consistency(
    weak: Float[Tensor, " frames"], strong: Float[Tensor, " frames"]
) -> Float[Tensor, " frames"]:
    """Computes KL(p_weak || p_strong) of each frame; only the strong view's logit has a gradient.

    Args:
        weak, strong: logits of two views of the same frames.
    """
    weak = weak.detach()
    target = torch.sigmoid(weak)
    cross = functional.binary_cross_entropy_with_logits(strong, target, reduction="none")
    return cross - functional.binary_cross_entropy_with_logits(weak, target, reduction="none")
