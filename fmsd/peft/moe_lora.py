"""Mixture of LoRA experts: low-rank updates among which a gate chooses for every token.

MoE-FFD: Kong et al., 2024, arXiv 2404.08452, its part MoLE. Its convolutional adapters, the loss
that balances the experts and the trained first norm of every block are not built, see
docs/methods/moe_lora.md. The gate follows Shazeer et al., ICLR 2017, arXiv 1701.06538; that an
expert's output is multiplied by the gate's probability is our reading.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.inject import PLAIN, inject, select_layers
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe

LEAST_NOISE = 1e-2
"""Smallest standard deviation of the noise on the gate's logits, of the released code."""


def moe_lora(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    ranks: Sequence[int],
    top: int = 1,
    noise: bool = True,
) -> Adaptation:
    """Makes LoRA experts and gates of the selected layers and the head trainable, freezes the rest.

    Args:
        patterns: linear layers to adapt, see `fmsd.peft.inject.select_layers`.
        ranks: the rank of each expert, all at least 1; two experts or more.
        top: number of experts per token, from 1 to their number.
        noise: add trained noise to the gate's logits in training.

    Raises:
        InputError: an argument is out of range; a layer is a convolution, or one whose weight the
            backbone reads instead of calling the layer; or as in `select_layers`.
    """
    if len(ranks) < 2 or min(ranks) < 1:
        raise InputError(
            f"method.ranks={list(ranks)} are not the ranks of two or more experts",
            "give each expert a rank of at least 1, e.g. method.ranks=[8,16,32]",
        )
    if not 1 <= top <= len(ranks):
        raise InputError(
            f"method.top={top} is out of range: there are {len(ranks)} experts",
            f"give a number from 1 to {len(ranks)}",
        )
    chosen = select_layers(detector, patterns)
    for name, layer in chosen.items():
        if isinstance(layer, nn.Conv2d):
            raise InputError(
                f"method=moe_lora routes tokens, and {name!r} is a convolution",
                f"add '!{name}' to method.patterns, or choose another method, e.g. method=lora",
            )
        if reads_weight(detector.backbone.get_submodule(name.rpartition(".")[0])):
            raise unroutable(f"the layer {name!r}")
    probe(detector)
    inject(
        detector.backbone,
        list(chosen),
        lambda _, layer: RoutedLinear(layer, ranks, top, noise),
    )
    return Adaptation()


def reads_weight(attention: nn.Module) -> bool:
    """Whether an attention of BEiT, EVA or Swin v2 reads its layer's weight, and never calls it.

    It does so to add the biases of query and value, which it keeps apart from the layer.
    """
    return getattr(attention, "q_bias", None) is not None and not getattr(
        attention, "qkv_bias_separate", False
    )


def unroutable(layer: str) -> InputError:
    """The refusal of a layer whose weight the backbone reads instead of calling it."""
    return InputError(
        f"The backbone reads the weight of {layer} instead of calling it, so method=moe_lora "
        "cannot choose experts per token there",
        "choose another backbone, e.g. clip_vit_l14, or another method, e.g. method=lora",
    )


class RoutedLinear(nn.Module):
    """A frozen linear layer with low-rank experts, of which each token takes the likeliest.

        W x + sum over the `top` likeliest experts k of p_k(x) B_k A_k x,   p = softmax(W_gate x)

    In training, p is computed with normally distributed noise on its logits, of standard deviation
    softplus(W_noise x) + .01. The B_k and both gates start at zero, so training starts at the
    pretrained model.

    The experts are stacked: `a` has the rows of all A_k, `b` the columns of all B_k. All experts
    are computed and the inactive ones set to zero, two matrix products without a loop, which
    exporters and compilers can trace.

    Args:
        layer: the pretrained layer.
        ranks: the rank of each expert.
        top: number of experts per token.
        noise: add noise in training.

    Raises:
        TypeError: the layer is no plain linear layer.
    """

    kind: ClassVar[str] = "moe_lora"
    unfoldable: ClassVar[str] = "method=moe_lora chooses among its experts for each token"
    frozen: Tensor
    members: Tensor

    def __init__(
        self,
        layer: nn.Module,
        ranks: Sequence[int],
        top: int = 1,
        noise: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear) or type(layer) not in PLAIN:
            raise TypeError("it is no plain linear layer")
        self.ranks, self.top, self.noisy = list(ranks), top, noise
        weight = layer.weight.detach()
        self.out_features, self.in_features = weight.shape
        # Not persistent, so not in adapter files: loading one needs the base weights anyway.
        self.register_buffer("frozen", weight, persistent=False)
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.a = nn.Parameter(weight.new_empty(sum(ranks), self.in_features))
        self.b = nn.Parameter(weight.new_zeros(self.out_features, sum(ranks)))
        self.gate = nn.Parameter(weight.new_zeros(len(ranks), self.in_features))
        self.noise = nn.Parameter(weight.new_zeros(len(ranks), self.in_features)) if noise else None
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        # which rows of `a` are of an expert: a product with it has a cheaper gradient than an index
        owner = torch.arange(len(ranks)).repeat_interleave(torch.tensor(self.ranks))
        members = functional.one_hot(owner).T.to(weight)
        self.register_buffer("members", members, persistent=False)

    @classmethod
    def rebuild(
        cls, layer: nn.Module, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "RoutedLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        Raises:
            ValueError: the described experts are not those of the tensors, or less than `top`.
            TypeError: the layer is no plain linear layer.
        """
        ranks, top = [int(rank) for rank in description["ranks"].split(",")], description["top"]
        # Checked before a tensor of that size is allocated.
        if len(tensors["a"]) != sum(ranks) or len(tensors["gate"]) != len(ranks) or min(ranks) < 1:
            raise ValueError(f"ranks {ranks} are not those of its tensors")
        if not 1 <= top <= len(ranks):
            raise ValueError(f"top={top} is not from 1 to {len(ranks)}")
        return cls(layer, **{**description, "ranks": ranks})

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained layer, make this layer."""
        ranks = ",".join(map(str, self.ranks))  # a text, since descriptions hold no lists
        return {"ranks": ranks, "top": self.top, "noise": self.noisy}

    @property
    def weight(self) -> NoReturn:
        """There is none: a backbone that reads it cannot be routed, and is refused.

        Raises:
            InputError: always.
        """
        raise unroutable("a layer with experts")

    def gates(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch experts"]:
        """Computes the probability of every expert that a token takes, 0 of the others.

        In float32 or better even under autocast: bfloat16 would round close logits to equal ones.
        """
        with torch.autocast(x.device.type, enabled=False):
            exact = x.to(torch.promote_types(x.dtype, torch.float32))
            logits = functional.linear(exact, self.gate.to(exact.dtype))
            if self.noise is not None and self.training:
                noise = functional.linear(exact, self.noise.to(exact.dtype))
                spread = functional.softplus(noise) + LEAST_NOISE
                logits = logits + spread * torch.randn_like(logits)
            shares = logits.softmax(-1)
            return torch.zeros_like(shares).scatter(-1, shares.topk(self.top).indices, 1.0) * shares

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Computes the layer's output, with the update of the chosen experts."""
        code = functional.linear(x, self.a)
        code = code * (self.gates(x).to(code.dtype) @ self.members.to(code.dtype))
        return functional.linear(x, self.frozen, self.bias) + functional.linear(code, self.b)

    def extra_repr(self) -> str:
        """The sizes that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, " + ", ".join(
            f"{name}={value}" for name, value in self.describe().items()
        )
