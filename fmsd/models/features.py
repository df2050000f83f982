"""The penultimate features of a detector, the input of its head's last layer."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fmsd.errors import InputError
from fmsd.linalg import unit_vectors
from fmsd.models.detector import Detector
from fmsd.models.head import CosineHead, FeatureHead


class FeatureCapture:
    """Keeps the input of the head's last matrix in a forward pass that builds a graph.

    Its hook stays on the detector from `attach` to `remove`, since a compiled forward pass knows
    the hooks of its first call alone. If it were not removed after training, every later pass with
    gradients would keep its graph here.

    Raises:
        InputError: the head has no matrix.
    """

    def __init__(self, detector: Detector) -> None:
        last = detector.last_layer()
        if last is None:
            raise InputError(
                f"The head of {type(detector.backbone).__name__} has no matrix, so there is no "
                "feature before it for the loss",
                "take loss=bce, or choose another backbone",
            )
        self.layer = last
        self.seen: Tensor | None = None
        self.hook: RemovableHandle | None = None

    def attach(self) -> None:
        """Begins to keep the features of passes."""
        if self.hook is None:
            self.hook = self.layer.register_forward_pre_hook(self._keep)

    def remove(self) -> None:
        """Ends it, and forgets the features."""
        if self.hook is not None:
            self.hook.remove()
        self.hook = self.seen = None

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """The hook."""
        if torch.is_grad_enabled():
            self.seen = inputs[0]

    def take(self) -> Float[Tensor, "batch channels"]:
        """The features of the latest forward pass, in float32 or better, and forgets them."""
        assert self.seen is not None
        feature, self.seen = self.seen.flatten(1), None
        return feature.to(torch.promote_types(feature.dtype, torch.float32))


@torch.no_grad()
def features_and_logits(
    detector: Detector, image: Shaped[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, " batch"]]:
    """Computes the input of the head's last matrix, and the logits, in one pass.

    Of a cosine or feature head the features are unit vectors.
    """
    taken, logit = last_input_and_logits(detector, image)
    normalised = isinstance(detector.last_layer(), CosineHead | FeatureHead)
    return unit_vectors(taken) if normalised else taken.flatten(1).float(), logit.float()


@torch.no_grad()
def last_input_and_logits(
    detector: Detector, image: Shaped[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, " batch"]]:
    """The input of the head's last layer as it is, and the logits."""
    seen: list[Any] = []
    last = detector.last_layer()
    assert last is not None
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logit = detector(image)
    finally:
        hook.remove()
    (taken,) = seen
    return taken, logit
