"""Visual prompt tuning, deep: trainable tokens in the input of every block.

Jia et al., ECCV 2022, arXiv 2203.12119.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.layers.attention import AttentionRope
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import (
    Block,
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)
from torch import Tensor, nn
from torch.nn import functional

from fmsd.checks import check_dropout
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe

BLOCKS = (
    Block,
    ResPostBlock,
    ParallelScalingBlock,
    DiffParallelScalingBlock,
    ParallelThingsBlock,
    EvaBlock,
    EvaBlockPostNorm,
)
"""timm's blocks that take a list of tokens of any length.

Derived classes, blocks of windows and blocks with a table of relative positions (BEiT, Swin, Hiera)
do not.
"""

ROTARY = (AttentionRope, EvaAttention)
"""Classes of attention that leave their first `num_prefix_tokens` tokens without a position."""


def vpt(
    detector: Detector, batches: Batches | None = None, *, tokens: int, dropout: float = 0.0
) -> Adaptation:
    """Makes prompt tokens in every block and the head trainable, and freezes the rest.

    Args:
        tokens: prompt tokens per block, at least 1.
        dropout: dropout probability of the prompt tokens in training, in [0, 1).

    Raises:
        InputError: an argument is out of range, or the backbone is no plain vision transformer.
    """
    if tokens < 1:
        raise InputError(f"method.tokens={tokens} is no number of tokens", "set it to 1 or more")
    check_dropout(dropout)
    backbone: Any = detector.backbone
    blocks = getattr(backbone, "blocks", None)
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if (
        not isinstance(blocks, nn.Sequential | nn.ModuleList)
        or not hasattr(backbone, "num_prefix_tokens")
        or patch is None
        or any(type(block) not in BLOCKS for block in blocks)
    ):
        raise InputError(
            f"{type(backbone).__name__} is no plain vision transformer, in whose blocks method=vpt "
            "could insert tokens: its blocks work on windows, on feature maps or with a table of "
            "relative positions, or its patches have no fixed size",
            "choose such a backbone, e.g. clip_vit_l14 or dinov2_l14, or another method, e.g. "
            "method=lora",
        )
    probe(detector)
    bound = math.sqrt(6 / (3 * math.prod(patch) + backbone.embed_dim))
    for number, block in enumerate(blocks):
        prompted = PromptedBlock(
            block, tokens, backbone.embed_dim, backbone.num_prefix_tokens, dropout
        )
        nn.init.uniform_(prompted.prompts, -bound, bound)
        blocks[number] = prompted
    return Adaptation()


class PromptedBlock(nn.Module):
    """A frozen block whose input has trainable prompt tokens after the prefix tokens.

    Its output is without them: every block replaces the prompts of the one before. In blocks with
    rotary positions the prompts have none, as the prefix tokens.

    Args:
        block: the pretrained block.
        tokens: number of prompt tokens.
        channels: of a token.
        prefix: number of prefix tokens (class token, registers) in the block's input.
        dropout: dropout probability of the prompt tokens in training.

    Raises:
        TypeError: the module is no block that takes tokens of any number.
    """

    kind: ClassVar[str] = "vpt"
    unfoldable: ClassVar[str] = "method=vpt adds tokens to the input of every block"

    def __init__(
        self, block: nn.Module, tokens: int, channels: int, prefix: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if type(block) not in BLOCKS:
            raise TypeError("it is no block of a plain vision transformer")
        self.inserted_tokens, self.channels, self.prefix = tokens, channels, prefix
        self.dropout = dropout
        weight = next(block.parameters())
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(weight.new_zeros(tokens, channels))
        for module in block.modules():
            if isinstance(module, ROTARY):
                module.num_prefix_tokens = prefix + tokens

    @classmethod
    def rebuild(
        cls, layer: nn.Module, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "PromptedBlock":
        """Builds the module that `describe` described, around the same pretrained block.

        Raises:
            ValueError: the described prompts are not the tensors'.
            TypeError: the module is no block that takes tokens of any number.
        """
        # Checked before a tensor of that size is allocated.
        if list(tensors["prompts"].shape) != [description["tokens"], description["channels"]]:
            raise ValueError(f"{description['tokens']} prompts are not those of its tensors")
        return cls(layer, **description)

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained block, make this module."""
        return {
            "tokens": self.inserted_tokens,
            "channels": self.channels,
            "prefix": self.prefix,
            "dropout": self.dropout,
        }

    def no_weight_decay(self) -> set[str]:
        """The names of parameters without weight decay: none is a matrix."""
        return {"prompts"}

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "batch tokens channels"]:
        """Computes the block's output for the tokens of `x`.

        Args:
            x: prefix tokens and patches.
            args, kwargs: further arguments of the block, such as rotary positions.
        """
        prompts = self.prompts.to(x.dtype).expand(x.shape[0], -1, -1)
        if self.dropout:
            prompts = functional.dropout(prompts, self.dropout, self.training)
        y = self.block(
            torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], dim=1), *args, **kwargs
        )
        if not self.prefix:
            return y[:, self.inserted_tokens :]
        return torch.cat([y[:, : self.prefix], y[:, self.prefix + self.inserted_tokens :]], dim=1)

    def extra_repr(self) -> str:
        """The arguments that `print(model)` shows."""
        return ", ".join(f"{name}={value}" for name, value in self.describe().items())


def check_prefix(block: PromptedBlock, name: str, backbone: nn.Module, source: Path) -> None:
    """Checks that the prompts of a file are inserted where the backbone's prefix tokens end.

    Args:
        name: of the block in the backbone.
        source: the file.

    Raises:
        InputError: they are not.
    """
    count = getattr(backbone, "num_prefix_tokens", None)
    if block.prefix != count:
        raise InputError(
            f"{source} is damaged: the layer {name!r} inserts its prompts after {block.prefix} "
            f"tokens, and {type(backbone).__name__} has {count} before its patches",
            f"take {source.name} and its weights anew from one run",
        )
