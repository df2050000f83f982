"""Heads that do not depend on the length of the feature z.

    feature head    logit = <w, z / ||z||> + b
    cosine head     logit = scale * <w / ||w||, z / ||z||>

The feature head is that of LNCLIP (arXiv 2503.19683) and GenD (arXiv 2508.06248), with one output:
the difference of the two, fake and real, that they have. GAC-FAS (Le and Woo, CVPR 2024) normalises
the weights too, and has a logit scale of 12 and no bias. The cosine head is our reading of that for
a detector of one logit: no bias, since the features of a pretrained backbone share a mean
direction, along which w can shift all logits; and a trainable scale, initially 12.

The names of its tensors identify the kind of a head, so that no file of one kind is loaded as
another: `weight`, `bias` of timm's plain head, `weight`, `log_scale` of the cosine head, and
`linear.weight`, `linear.bias` of the feature head.
"""

import math
from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Float
from timm.layers.linear import Linear
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.linalg import unit_vectors

SCALE = 12.0
"""The initial scale, as in GAC-FAS."""

SPREAD = 0.02
"""Standard deviation of the direction's initial entries, as in timm's heads.

The length of the direction matters only to Adam, whose steps turn a short vector faster than a long
one: with timm's scale the head turns as fast as a plain one, whatever its width.
"""

HeadKind = bool | Literal["feature"]
"""Which head, in the words of `head.normalise`: plain, cosine (true) or feature."""

LOG_SCALE, LINEAR = "log_scale", "linear.weight"
"""The names of the tensors by which a cosine head and a feature head are recognised."""


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
        check_one_vector(feature)
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


class FeatureHead(nn.Module):
    """A linear layer with a bias on the feature divided by its L2 norm.

    It is initialised as torch initialises a linear layer.

    Args:
        width: number of channels of a feature.
        device, dtype: of the parameters.
    """

    def __init__(
        self, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1, device=device, dtype=dtype)

    def forward(self, feature: Float[Tensor, "*shape"]) -> Float[Tensor, "batch 1"]:
        """Computes logits of features (batch, width), in float32 or better even under autocast.

        Raises:
            InputError: the features are not one vector an image.
        """
        check_one_vector(feature)
        with torch.autocast(feature.device.type, enabled=False):
            unit, weight, bias = unit_vectors(feature), self.linear.weight, self.linear.bias
            exact = torch.promote_types(unit.dtype, weight.dtype)
            return functional.linear(unit.to(exact), weight.to(exact), bias.to(exact))


def check_one_vector(feature: Tensor) -> None:
    """Raises an `InputError` unless features are one vector an image."""
    if feature.ndim != 2:
        raise InputError(
            f"The head is given features of the shape {tuple(feature.shape)}, and "
            "head.normalise=true or feature needs one vector an image",
            "set head.normalise=false, or choose another backbone",
        )


def replace_head(backbone: nn.Module, kind: Literal[True, "feature"]) -> None:
    """Replaces a timm model's classifier by a cosine or feature head with random weights.

    Raises:
        InputError: the classifier is not one linear layer.
    """
    head = backbone.get_classifier()  # pyright: ignore[reportCallIssue]
    if type(head) not in (nn.Linear, Linear):
        about = (
            f"{len(head)} classifiers" if isinstance(head, tuple) else f"a {type(head).__name__}"
        )
        raise InputError(
            f"{type(backbone).__name__} ends in {about} instead of one linear layer, so "
            f"head.normalise={str(kind).lower()} cannot replace it",
            "set head.normalise=false, or choose another backbone",
        )
    name = next(name for name, module in backbone.named_modules() if module is head)
    new = FeatureHead if kind == "feature" else CosineHead
    backbone.set_submodule(name, new(head.in_features, head.weight.device, head.weight.dtype))


def head_kind(names: Collection[str], head: str) -> HeadKind:
    """The kind of the head among the tensors of a network.

    Args:
        names: of the tensors, possibly with the prefixes of wrappers.
        head: the head's name in timm's keys.
    """
    if any(f".{name}".endswith(f".{head}.{LINEAR}") for name in names):
        return "feature"
    return any(f".{name}".endswith(f".{head}.{LOG_SCALE}") for name in names)


def check_head_kind(names: Collection[str], backbone: nn.Module, head: str, source: str) -> None:
    """Checks that weights and a network have the same kind of head.

    Args:
        names: of the weights' tensors, possibly with the prefixes of wrappers.
        head: the head's name in timm's keys.
        source: the file, for the message.
    """
    found, wanted = head_kind(names, head), head_kind(backbone.state_dict(), head)
    if found != wanted:
        given = str(found).lower()
        raise InputError(
            f"{source} ends in a head of head.normalise={given}, and the network of the merge in "
            f"one of head.normalise={str(wanted).lower()}",
            "merge experts that were trained with the same head.normalise (with backbone=NAME "
            f"give backbone.normalise_head={given})",
        )
