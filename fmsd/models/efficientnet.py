"""EfficientNet as DeepfakeBench builds it: the padding of its convolutions, and its tensor names.

DeepfakeBench (Yan et al., NeurIPS 2023, arXiv 2307.01426) takes EfficientNet-B4 (Tan and Le, ICML
2019, arXiv 1905.11946) from the package efficientnet_pytorch, version 0.7.1. That pads a strided
convolution as TensorFlow's `same` does for images of 380 pixels, whatever the size of an image is;
timm's pads for the size of the image. DeepfakeBench replaces the first convolution by one without
padding. The same weights give other scores under another padding.
"""

import re
from collections.abc import Mapping

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError

SIDE = 380
"""Side in pixels of the images that the padding is computed for: that of EfficientNet-B4."""

MARK = "_conv_stem.weight"
"""A tensor by which efficientnet_pytorch is recognised."""

TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
"""The layers outside of the blocks, by their name in efficientnet_pytorch."""

SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}

EXPANDED = SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""The layers of a block that expands its channels first."""

PLAIN = SQUEEZE | {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""The layers of a block that does not."""


class FixedPadding(nn.Conv2d):
    """A convolution that pads by numbers of its own for each side, with zeros.

    Args:
        layer: gives weights and stride.
        before: rows above and columns to the left.
        after: rows below and columns to the right.
    """

    def __init__(self, layer: nn.Conv2d, before: int, after: int) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # pyright: ignore[reportArgumentType]
            layer.stride,  # pyright: ignore[reportArgumentType]
            groups=layer.groups,
            bias=layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.around = (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as torch names it
        """Pads and convolves."""
        return super().forward(functional.pad(input, self.around))

    def extra_repr(self) -> str:
        """The layer's own, and the padding."""
        return f"{super().extra_repr()}, around={self.around}"


def fix_padding(backbone: nn.Module) -> None:
    """Gives a timm EfficientNet the padding that DeepfakeBench's has, in place.

    Raises:
        InputError: it is no EfficientNet of timm with TensorFlow's padding.
    """
    padded = {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Conv2d) and type(layer) is Conv2dSame
    }
    if (stem := padded.pop("conv_stem", None)) is None:
        raise InputError(
            f"padding=deepfakebench is for an EfficientNet with TensorFlow's padding, and "
            f"{type(backbone).__name__} is none",
            "give a backbone whose name begins with tf_efficientnet_, or leave padding out",
        )
    backbone.set_submodule("conv_stem", FixedPadding(stem, 0, 0))
    side = -(-SIDE // stem.stride[0])
    for name, layer in padded.items():  # those of stride 1 pad alike on all sides, as a plain layer
        stride, kernel = layer.stride[0], layer.kernel_size[0]
        smaller = -(-side // stride)
        total = max((smaller - 1) * stride + kernel - side, 0)
        backbone.set_submodule(name, FixedPadding(layer, total // 2, total - total // 2))
        side = smaller


def to_timm_names(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Renames the tensors of efficientnet_pytorch to those of a timm EfficientNet.

    Names that it does not know, of more blocks for one, stay.

    Args:
        backbone: gives the number of blocks in each stage; may be on the meta device.
    """
    own = backbone.state_dict().keys()
    stages = sorted(
        {
            (int(match[1]), int(match[2]))
            for name in own
            if (match := re.match(r"blocks\.(\d+)\.(\d+)\.", name))
        }
    )
    return {_timm_name(name, stages, state): tensor for name, tensor in state.items()}


def _timm_name(name: str, stages: list[tuple[int, int]], state: Mapping[str, Tensor]) -> str:
    parts = name.split(".")
    if parts[0] in TOP:
        return ".".join([TOP[parts[0]], *parts[1:]])
    if parts[0] != "_blocks" or len(parts) < 4 or not parts[1].isdecimal():
        return name
    number = int(parts[1])
    layers = EXPANDED if f"_blocks.{number}._expand_conv.weight" in state else PLAIN
    if number >= len(stages) or parts[2] not in layers:
        return name
    stage, place = stages[number]
    return ".".join(["blocks", str(stage), str(place), layers[parts[2]], *parts[3:]])
