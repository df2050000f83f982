"""AdaptFormer, VPT-deep and MoE-FFD's LoRA experts as a user writes them by hand for a ViT of timm.

They use nothing of fmsd.peft, and compute what its methods compute. Each trains its own parameters
and the head. The routing is that of the released code: the tokens of each expert are gathered,
projected and added back.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation


def frozen_but_head(model: Detector) -> Any:
    """The backbone, of which the head alone is trained."""
    model.requires_grad_(False)
    model.head().requires_grad_(True)
    return model.backbone


class Adapter(nn.Module):
    """An MLP and a bottleneck beside it."""

    def __init__(self, mlp: nn.Module, width: int, bottleneck: int, scale: float, dropout: float):
        super().__init__()
        self.mlp, self.scale = mlp, scale
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return self.mlp(x) + self.scale * self.up(self.dropout(self.down(x).relu()))


def plain_adapter(model: Detector, bottleneck: int, scale: float, dropout: float) -> Adaptation:
    """AdaptFormer."""
    backbone = frozen_but_head(model)
    for block in backbone.blocks:
        own = Adapter(block.mlp, backbone.embed_dim, bottleneck, scale, dropout)
        block.mlp = own.to(backbone.pos_embed.device)
    return Adaptation()


def plain_vpt(model: Detector, tokens: int) -> Adaptation:
    """VPT-deep: each block replaces the prompts of the one before."""
    backbone = frozen_but_head(model)
    place = backbone.pos_embed.device
    shape = (len(backbone.blocks), tokens, backbone.embed_dim)
    backbone.prompts = nn.Parameter(0.02 * torch.randn(shape, device=place))

    def forward_features(image: Tensor, **_: Any) -> Tensor:
        x = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(image)))
        for number, block in enumerate(backbone.blocks):
            prompts = backbone.prompts[number].expand(len(x), -1, -1).to(x.dtype)
            rest = x[:, 1:] if number == 0 else x[:, 1 + tokens :]
            x = block(torch.cat([x[:, :1], prompts, rest], 1))
        return backbone.norm(x)

    backbone.forward_features = forward_features
    return Adaptation()


class Routed(nn.Module):
    """A linear layer with low-rank experts, one per token."""

    def __init__(self, layer: nn.Linear, ranks: Sequence[int]):
        super().__init__()
        self.layer, width = layer, layer.in_features
        self.a = nn.ModuleList(nn.Linear(width, rank, bias=False) for rank in ranks)
        self.b = nn.ModuleList(nn.Linear(rank, layer.out_features, bias=False) for rank in ranks)
        self.gate = nn.Parameter(torch.zeros(width, len(ranks)))
        self.noise = nn.Parameter(torch.zeros(width, len(ranks)))
        for a, b in zip(self.a, self.b, strict=True):
            nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))  # pyright: ignore
            nn.init.zeros_(b.weight)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with the update of each token's likeliest expert."""
        tokens = x.flatten(0, -2)
        logits = tokens @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (
                functional.softplus(tokens @ self.noise) + 0.01
            )
        share, chosen = logits.softmax(-1).max(-1)
        y = self.layer(tokens)
        for expert, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            (rows,) = (chosen == expert).nonzero(as_tuple=True)
            update = b(a(tokens[rows])) * share[rows, None].to(y.dtype)
            y = y.index_add(0, rows, update.to(y.dtype))
        return y.unflatten(0, x.shape[:-1])


def plain_moe_lora(model: Detector, ranks: Sequence[int]) -> Adaptation:
    """LoRA experts on query, key and value."""
    backbone = frozen_but_head(model)
    for block in backbone.blocks:
        block.attn.qkv = Routed(block.attn.qkv, ranks).to(backbone.pos_embed.device)
    return Adaptation()
