"""The penultimate features of a detector, the input of its head's last layer."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fmsd.models.detector import Detector
from fmsd.models.head import CosineHead, unit_vectors


@torch.no_grad()
def features_and_logits(
    detector: Detector, image: Shaped[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, " batch"]]:
    """Computes the input of the head's last matrix, and the logits, in one pass.

    Of a cosine head the features are unit vectors.
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
    return unit_vectors(taken) if isinstance(last, CosineHead) else taken.flatten(
        1
    ).float(), logit.float()


def last_layer(detector: Detector) -> nn.Module | None:
    """The last layer with a matrix in the head; None of a head without one."""
    layers = [
        layer
        for layer in detector.head().modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | CosineHead)
    ]
    return layers[-1] if layers else None  # some heads pool or norm first
