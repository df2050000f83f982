"""LoRA-XS: a small trainable matrix between frozen singular directions of every matrix.

Balazy et al., ECAI 2025, arXiv 2405.17604.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.checks import check_factor, check_range
from fmsd.console import track
from fmsd.models.detector import Detector
from fmsd.peft.inject import (
    Matrix,
    check_directions,
    inject,
    plain_layer,
    select_layers,
    stack_size,
)
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe
from fmsd.peft.svd_cache import cached_directions


def lora_xs(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    rank: int = 16,
    alpha: float = 16,
    sigma: float = 1e-5,
) -> Adaptation:
    """Makes a rank x rank matrix per selected matrix and the head trainable.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.
        rank: number of singular directions, at least 1 and below the sides of every matrix.
        alpha: the update is scaled by alpha / rank; above 0.
        sigma: standard deviation of the trained matrix at the start, at least 0.

    Raises:
        InputError: an argument is out of range, a matrix has too few singular directions, or as in
            `select_layers`.
    """
    check_range("method.rank", rank, 1)
    check_range("method.sigma", sigma)
    check_factor("method.alpha", alpha, "updates", "the rank")
    layers = select_layers(detector, patterns)
    check_directions(layers, rank, "method.rank")
    probe(detector)
    for name in track(list(layers), "Decomposing layers", len(layers), "layers"):
        inject(
            detector.backbone,
            [name],
            lambda name, layer: LoraXsLinear(layer, stack_size(name), rank, alpha, sigma),
        )
    return Adaptation()


class LoraXsLinear(nn.Module):
    """A frozen linear layer or pointwise convolution with a trainable matrix of coefficients.

        W_eff = W + alpha / rank * U R diag(s) V^T

    U, s and V are the largest singular directions of W, frozen. R is (rank, rank), trained, and
    starts at random with a standard deviation of sigma. As in the released code, the singular
    values are on the side of the input. A layer that stacks several matrices has one R for each.

    U and diag(s) V^T are kept in adapter files, so that loading one needs no decomposition.

    Args:
        layer: the pretrained layer.
        parts: number of matrices stacked along the output.
        rank, alpha, sigma: see `lora_xs`.
        factors: U, and diag(s) V^T, of each matrix, if they are known already.
    """

    kind: ClassVar[str] = "lora_xs"
    frozen: Tensor
    u: Tensor
    svt: Tensor

    def __init__(
        self,
        layer: Matrix,
        parts: int,
        rank: int,
        alpha: float,
        sigma: float,
        factors: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.rank, self.alpha, self.sigma = parts, rank, alpha, sigma
        self.stride = (layer.stride[0], layer.stride[1]) if isinstance(layer, nn.Conv2d) else None
        weight = layer.weight.detach().flatten(1)
        self.out_features, self.in_features = weight.shape
        if factors is None:
            found = [
                cached_directions(matrix, rank, "top")
                for matrix in weight.unflatten(0, (parts, -1))
            ]
            u, s, vt = map(torch.stack, zip(*found, strict=True))
            factors = u.to(weight.dtype), (s[..., None] * vt).to(weight.dtype)
        self.register_buffer("u", factors[0])
        self.register_buffer("svt", factors[1])
        # Not persistent, so not in adapter files: loading one needs the base weights anyway.
        self.register_buffer("frozen", weight, persistent=False)
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.r = nn.Parameter(weight.new_empty(parts, rank, rank).normal_(std=sigma))

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "LoraXsLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        Raises:
            ValueError: the described sizes are not those of the tensors and the layer.
        """
        parts, rank = description["parts"], description["rank"]
        rows, columns = layer.weight.shape[:2]
        u, svt = (tensors[name].to(layer.weight.device) for name in ("u", "svt"))
        # Checked before a tensor of that size is allocated.
        if (
            rows % parts
            or u.shape != (parts, rows // parts, rank)
            or svt.shape != (parts, rank, columns)
        ):
            raise ValueError(f"rank {rank} and {parts} parts are not those of its tensors")
        return cls(layer, **description, factors=(u, svt))

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained layer, make this layer."""
        return {name: getattr(self, name) for name in ("parts", "rank", "alpha", "sigma")}

    @property
    def left(self) -> Float[Tensor, "parts out rank"]:
        """The factor alpha / rank * U R of the update."""
        return self.u @ (self.alpha / self.rank * self.r)

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        update = (self.left @ self.svt).flatten(0, 1)
        weight = self.frozen + update.to(self.frozen.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Computes the plain layer's output under the effective weight, without forming it.

        Args:
            x: (*, in), or (batch, in, height, width) of a convolution.
        """
        down, left = self.svt.flatten(0, 1), self.left
        up = torch.block_diag(*left) if self.parts > 1 else left[0]
        if self.stride is None:
            update = functional.linear(functional.linear(x, down), up)
            return functional.linear(x, self.frozen, self.bias) + update
        update = functional.conv2d(
            functional.conv2d(x, down[..., None, None], stride=self.stride), up[..., None, None]
        )
        return functional.conv2d(x, self.frozen[..., None, None], self.bias, self.stride) + update

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The sizes that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, " + ", ".join(
            f"{name}={value}" for name, value in self.describe().items()
        )
