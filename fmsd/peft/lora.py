"""Low-rank adaptation: beside every frozen matrix learns an update of low rank. LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353)."""

import math
from collections.abc import Sequence

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
    """Adds a learnable low-rank update to the named matrices; they, the head and nothing else learn.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.
        rank: rank of the update, at least 1.
        alpha: the update counts alpha / rank times; above 0.
        dropout: probability in [0, 1) that an input of the update is left out in training.
        dora: learn the length of every row of the weight too.

    Raises:
        InputError: a number out of range, or a pattern that `select` refuses.
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
    """A frozen linear layer or pointwise convolution with a learnable update of low rank.

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
        alpha: the update counts alpha / rank times.
        dropout: probability that an input of the update is left out in training; the frozen product
            sees the whole input.
        dora: learn a magnitude for every row of the weight.
    """

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
        # The base weight is at hand wherever an adapter is loaded: not persistent keeps it out of
        # the adapter's file.
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

    def describe(self) -> dict[str, object]:
        """The arguments that, beside the pretrained layer, make this layer."""
        return {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout, "dora": self.dora}

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        weight = self.frozen + self.scaling * (self.b @ self.a)
        if self.magnitude is not None:
            weight = _stretch(self.magnitude, weight)[:, None] * weight
        weight = weight.to(self.frozen.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Equals the plain layer with the effective weight, without forming it. x is (*, in), or (batch, in, height, width) of a convolution."""
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
        # Detached before the product, not after it: no graph of the size of the weight is made for
        # a constant.
        stretch = _stretch(
            self.magnitude, self.frozen + self.scaling * (self.b.detach() @ self.a.detach())
        )
        y = (self._product(x, None) + self.scaling * update) * self._channels(stretch)
        if self.bias is not None:
            y = y + self._channels(self.bias)
        return y.to(update.dtype)

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The numbers that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, " + ", ".join(
            f"{name}={value}" for name, value in self.describe().items()
        )

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """What the pretrained layer gives, with or without its bias."""
        if self.stride is None:
            return functional.linear(x, self.frozen, bias)
        return functional.conv2d(x, self.frozen[..., None, None], bias, self.stride)

    def _channels(self, vector: Float[Tensor, " out"]) -> Tensor:
        """One number per output, in a shape that broadcasts against the layer's output."""
        return vector if self.stride is None else vector[:, None, None]


def _stretch(
    magnitude: Float[Tensor, " out"], weight: Float[Tensor, "out in"]
) -> Float[Tensor, " out"]:
    """What brings the rows of a weight to their magnitude; the norms are constants to the gradient. A row of zeros stays one."""
    return magnitude / torch.linalg.vector_norm(weight.detach(), dim=1).clamp_min(
        torch.finfo(weight.dtype).tiny
    )
