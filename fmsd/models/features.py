"""The penultimate features of a detector, the input of its head's last layer."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fmsd.models.detector import Detector
from fmsd.models.head import CosineHead, FeatureHead, unit_vectors


@torch.no_grad()
def features_and_logits(
    detector: Detector, image: Shaped[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, " batch"]]:
    """Computes the input of the head's last matrix, and the logits, in one pass.

    Of a cosine or feature head the features are unit vectors.
    """
    seen: list[Any] = []
    last = last_layer(detector)
    assert last is not None
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logit = detector(image)
    finally:
        hook.remove()
    (taken,) = seen
    normalised = isinstance(last, CosineHead | FeatureHead)
    return unit_vectors(taken) if normalised else taken.flatten(1).float(), logit.float()


def last_layer(detector: Detector) -> nn.Module | None:
    """The last layer with a matrix in the head; None of a head without one."""
    if isinstance(head := detector.head(), FeatureHead):
        return head
    layers = [
        layer for layer in head.modules() if isinstance(layer, nn.Linear | nn.Conv2d | CosineHead)
    ]
    return layers[-1] if layers else None  # some heads pool or norm first
