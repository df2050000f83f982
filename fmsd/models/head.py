"""A cosine classifier: the logit is a trainable multiple of the cosine of feature and direction.

    logit = scale * <w / ||w||, z / ||z||>

LNCLIP (arXiv 2503.19683) and GenD (arXiv 2508.06248) normalise the feature z before a linear layer.
GAC-FAS (Le and Woo, CVPR 2024) normalises the weights too, and has a logit scale of 12 and no bias.
This head is our reading of both for a detector of one logit: no bias, since the features of a
pretrained backbone share a mean direction, along which w can shift all logits; and a trainable
scale, initially 12.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from timm.layers.linear import Linear
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError

SCALE = 12.0
"""The initial scale, as in GAC-FAS."""

SPREAD = 0.02
"""Standard deviation of the direction's initial entries, as in timm's heads.

The length of the direction matters only to Adam, whose steps turn a short vector faster than a long
one: with timm's scale the head turns as fast as a plain one, whatever its width.
"""

SHORTEST = 1e-6
"""Least length by which a vector is divided, so that the gradient at zero is finite."""

LOG_SCALE = "log_scale"
"""The name of the tensor by which this head is recognised in a state dict."""


class CosineHead(nn.Module):
    """The scaled cosine between a feature and a trainable direction; neither's length matters.

    Args:
        width: number of channels of a feature.
        device, dtype: of the parameters.
    """

    def __init__(
        self, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(SPREAD * torch.randn(1, width, device=device, dtype=dtype))
        self.log_scale = nn.Parameter(torch.full((), math.log(SCALE), device=device, dtype=dtype))

    def forward(self, feature: Float[Tensor, "*shape"]) -> Float[Tensor, "batch 1"]:
        """Computes logits of features (batch, width), in float32 or better even under autocast.

        Raises:
            InputError: the features are not one vector an image.
        """
        if feature.ndim != 2:
            raise InputError(
                f"The head is given features of the shape {tuple(feature.shape)}, and "
                "head.normalise=true needs one vector an image",
                "set head.normalise=false, or choose another backbone",
            )
        with torch.autocast(feature.device.type, enabled=False):
            direction = unit_vectors(self.weight)
            return (
                functional.linear(unit_vectors(feature).to(direction.dtype), direction)
                * self.log_scale.exp()
            )

    def no_weight_decay(self) -> set[str]:
        """All parameters: decay would shorten the direction, so that it turns faster.

        It would pull the scale to 1.
        """
        return {"weight", LOG_SCALE}

    def extra_repr(self) -> str:
        """The width, which `print(model)` shows."""
        return f"{self.weight.shape[1]}"


def unit_vectors(vectors: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Normalises vectors along the last dimension, in float32 or better; zeros stay zeros."""
    return functional.normalize(
        vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1, eps=SHORTEST
    )


def put_cosine_head(backbone: nn.Module) -> None:
    """Replaces a timm model's classifier by a cosine head with random weights.

    Raises:
        InputError: the classifier is not one linear layer.
    """
    head = backbone.get_classifier()  # pyright: ignore[reportCallIssue]
    if type(head) not in (nn.Linear, Linear):
        kind = f"{len(head)} classifiers" if isinstance(head, tuple) else f"a {type(head).__name__}"
        raise InputError(
            f"{type(backbone).__name__} ends in {kind} instead of one linear layer, so "
            "head.normalise=true cannot replace it",
            "set head.normalise=false, or choose another backbone",
        )
    name = next(name for name, module in backbone.named_modules() if module is head)
    backbone.set_submodule(
        name, CosineHead(head.in_features, head.weight.device, head.weight.dtype)
    )


def check_head_kind(names: Iterable[str], backbone: nn.Module, head: str, source: str) -> None:
    """Checks that weights and a network have the same kind of head, plain or cosine.

    Args:
        names: of the weights' tensors, possibly with the prefixes of wrappers.
        head: the head's name in timm's keys.
        source: the file, for the message.
    """
    cosine = any(f".{name}".endswith(f".{head}.{LOG_SCALE}") for name in names)
    network_cosine = isinstance(backbone.get_submodule(head), CosineHead)
    if cosine != network_cosine:
        kinds = ("plain", "normalised")
        raise InputError(
            f"{source} ends in a {kinds[cosine]} head, and the network of the merge in a "
            f"{kinds[network_cosine]} one",
            "merge experts that were trained with the same head.normalise"
            + (" (with backbone=NAME give backbone.cosine_head=true)" if cosine else ""),
        )
