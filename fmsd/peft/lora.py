"""Low-rank adaptation: a trainable low-rank update of every frozen matrix.

LoRA: Hu et al., ICLR 2022, arXiv 2106.09685. DoRA: Liu et al., ICML 2024, arXiv 2402.09353.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.inject import Matrix, inject, plain_layer, select_layers
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe


def lora(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    dora: bool = False,
) -> Adaptation:
    """Makes low-rank updates of the selected layers and the head trainable, and freezes the rest.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.
        rank: rank of the update, at least 1.
        alpha: the update is scaled by alpha / rank; above 0.
        dropout: dropout probability of the update's input in training, in [0, 1).
        dora: train the length of every row of the weight too.

    Raises:
        InputError: an argument is out of range, or as in `select_layers`.
    """
    if rank < 1:
        raise InputError(f"method.rank={rank} is no rank", "set it to 1 or more")
    if not alpha > 0:
        raise InputError(
            f"method.alpha={alpha} would switch the update off or turn it round",
            "set it above 0, e.g. to twice the rank",
        )
    if not 0 <= dropout < 1:
        raise InputError(
            f"method.dropout={dropout} is no probability below 1",
            "set it to 0 or more and less than 1",
        )
    probe(detector)
    inject(
        detector.backbone,
        list(select_layers(detector, patterns)),
        lambda _, layer: LoraLinear(layer, rank, alpha, dropout, dora),
    )
    return Adaptation()


class LoraLinear(nn.Module):
    """A frozen linear layer or pointwise convolution with a trainable low-rank update.

        W_eff = W + alpha / rank * B A                                                    LoRA
        W_eff = diag(magnitude / ||W + alpha / rank * B A||_row) (W + alpha / rank * B A)   DoRA

    B starts at zero and the magnitude at the row norms of W, so W_eff starts as W. In the backward
    pass of DoRA the norms are constants, as section 4.3 of its paper proposes. A layer that stacks
    several matrices (a fused q, k, v) is one matrix here, as in the peft package.

    Some backbones (BEiT, EVA, Swin v2) never call the layer but read its `weight`: it is the
    effective matrix, with gradients. Dropout cannot act there, for it acts on the input of the
    update.

    Args:
        layer: the pretrained layer.
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout probability of the update's input in training; the frozen product sees the
            whole input.
        dora: train a magnitude of every row of the weight.
    """

    kind: ClassVar[str] = "lora"
    frozen: Tensor

    def __init__(
        self, layer: Matrix, rank: int, alpha: float, dropout: float = 0.0, dora: bool = False
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout, self.dora = rank, alpha, dropout, dora
        self.scaling = alpha / rank
        self.stride = (layer.stride[0], layer.stride[1]) if isinstance(layer, nn.Conv2d) else None
        weight = layer.weight.detach().flatten(1)
        self.out_features, self.in_features = weight.shape
        # Not persistent, so not in adapter files: loading one needs the base weights anyway.
        self.register_buffer("frozen", weight, persistent=False)
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.a = nn.Parameter(weight.new_empty(rank, self.in_features))
        self.b = nn.Parameter(weight.new_zeros(self.out_features, rank))
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(weight, dim=1)) if dora else None
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "LoraLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        Raises:
            ValueError: the described rank is not that of the tensors.
        """
        # Checked before a tensor of that size is allocated.
        if tensors["a"].shape[0] != description["rank"]:
            raise ValueError(f"rank {description['rank']} is not that of its tensors")
        return cls(layer, **description)

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained layer, make this layer."""
        return {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout, "dora": self.dora}

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        weight = self.frozen + self.scaling * (self.b @ self.a)
        if self.magnitude is not None:
            weight = _row_scale(self.magnitude, weight)[:, None] * weight
        weight = weight.to(self.frozen.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Computes the plain layer's output under the effective weight, without forming it.

        Args:
            x: (*, in), or (batch, in, height, width) of a convolution.
        """
        code = functional.dropout(x, self.dropout, self.training) if self.dropout else x
        if self.stride is None:
            update = functional.linear(functional.linear(code, self.a), self.b)
        else:
            update = functional.conv2d(
                functional.conv2d(code, self.a[..., None, None], stride=self.stride),
                self.b[..., None, None],
            )
        if self.magnitude is None:
            return self._product(x, self.bias) + self.scaling * update
        # Detached before the product, not after it, so that no graph of the weight's size is kept.
        scale = _row_scale(
            self.magnitude, self.frozen + self.scaling * (self.b.detach() @ self.a.detach())
        )
        y = (self._product(x, None) + self.scaling * update) * self._channels(scale)
        if self.bias is not None:
            y = y + self._channels(self.bias)
        return y.to(update.dtype)

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The sizes that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, " + ", ".join(
            f"{name}={value}" for name, value in self.describe().items()
        )

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The pretrained layer's output, with the given bias."""
        if self.stride is None:
            return functional.linear(x, self.frozen, bias)
        return functional.conv2d(x, self.frozen[..., None, None], bias, self.stride)

    def _channels(self, vector: Float[Tensor, " out"]) -> Tensor:
        """Reshapes one value per output channel to broadcast against the layer's output."""
        return vector if self.stride is None else vector[:, None, None]


def _row_scale(
    magnitude: Float[Tensor, " out"], weight: Float[Tensor, "out in"]
) -> Float[Tensor, " out"]:
    """The factors that scale the rows of a weight to their magnitude.

    The norms are constants to the gradient. A row of zeros stays zero.
    """
    return magnitude / torch.linalg.vector_norm(weight.detach(), dim=1).clamp_min(
        torch.finfo(weight.dtype).tiny
    )
