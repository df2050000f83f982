"""Singular value fine-tuning: only the singular values of each matrix are trained.

SVF: Sun et al., NeurIPS 2022, arXiv 2206.06122.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.console import track
from fmsd.linalg import Factors
from fmsd.models.detector import Detector
from fmsd.peft.inject import (
    Matrix,
    check_stacks,
    inject,
    plain_layer,
    select_layers,
    stack_size,
)
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe
from fmsd.peft.svd_cache import cached_decomposition

ZERO = 1e-6
"""Share of the largest singular value below which one is zero up to rounding."""


def svf(
    detector: Detector, batches: Batches | None = None, *, patterns: Sequence[str]
) -> Adaptation:
    """Makes the singular values of the selected matrices and the head trainable.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.

    Raises:
        InputError: as in `select_layers` and `check_stacks`.
    """
    layers = select_layers(detector, patterns)
    check_stacks(layers)
    probe(detector)
    for name in track(list(layers), "Decomposing layers", len(layers), "layers"):
        inject(
            detector.backbone,
            [name],
            lambda name, layer: SvfLinear(layer, stack_size(name)),
        )
    return Adaptation()


class SvfLinear(nn.Module):
    """A linear layer or pointwise convolution of which only the singular values are trained.

        W_eff = U diag(s + ds) V^T = W + U diag(ds) V^T

    ds starts at zero, so W_eff starts as W. The update is added to W, which makes this exact to the
    bit. A layer that stacks several matrices is decomposed slice by slice.

    Every forward pass forms the effective matrix. The factored product (x V diag(s + ds)) U^T would
    multiply the input by two matrices of this size in each pass. Forming it takes one product of
    matrices in each, whose cost does not grow with the batch.

    U and V are as large as the matrix, so they are computed from the base weights and not kept in
    adapter files. The directions of singular values that are zero are not determined by the matrix;
    they have no part in the update, so that ds means the same on every machine.

    Args:
        layer: the pretrained layer.
        parts: number of matrices stacked along the output.
        factors: the decomposition of each, if it is known already.
    """

    kind: ClassVar[str] = "svf"
    frozen: Tensor
    u: Tensor
    vt: Tensor

    def __init__(self, layer: Matrix, parts: int, factors: Factors | None = None) -> None:
        super().__init__()
        self.parts = parts
        self.stride = (layer.stride[0], layer.stride[1]) if isinstance(layer, nn.Conv2d) else None
        weight = layer.weight.detach().flatten(1)
        self.out_features, self.in_features = weight.shape
        if factors is None:
            found = [cached_decomposition(matrix) for matrix in weight.unflatten(0, (parts, -1))]
            factors = Factors(*map(torch.stack, zip(*found, strict=True)))
        u, s, vt = factors
        determined = s > ZERO * s[..., :1]
        # Not persistent, so not in adapter files.
        self.register_buffer("frozen", weight, persistent=False)
        self.register_buffer("u", (u * determined[:, None]).to(weight.dtype), persistent=False)
        self.register_buffer("vt", vt.to(weight.dtype), persistent=False)
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.ds = nn.Parameter(weight.new_zeros(s.shape))

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "SvfLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        Raises:
            ValueError: the tensors are not of the layer's size.
        """
        parts, (rows, columns) = description["parts"], layer.weight.shape[:2]
        # Checked before anything is decomposed.
        if rows % parts or tensors["ds"].shape != (parts, min(rows // parts, columns)):
            raise ValueError("it has another number of singular values")
        return cls(layer, **description)

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained layer, make this layer."""
        return {"parts": self.parts}

    def no_weight_decay(self) -> set[str]:
        """The changes of the singular values, which are vectors, one per matrix."""
        return {"ds"}

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        update = ((self.u * self.ds[:, None]) @ self.vt).flatten(0, 1)
        weight = self.frozen + update.to(self.frozen.dtype)
        return weight if self.stride is None else weight[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Computes the plain layer's output under the effective weight.

        Args:
            x: (*, in), or (batch, in, height, width) of a convolution.
        """
        if self.stride is None:
            return functional.linear(x, self.weight, self.bias)
        return functional.conv2d(x, self.weight, self.bias, self.stride)

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """The sizes that `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, parts={self.parts}"
