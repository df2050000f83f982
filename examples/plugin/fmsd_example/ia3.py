"""(IA)3: a trainable factor per output of every selected matrix.

Liu et al., NeurIPS 2022, arXiv 2205.05638. The paper scales keys, values and the inner activations
of the feed-forward part of a language model. Our reading for images: the outputs of all selected
matrices, which are those of attention by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.inject import Matrix, inject, plain_layer, select_layers
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe


def ia3(
    detector: Detector, batches: Batches | None = None, *, patterns: Sequence[str]
) -> Adaptation:
    """Makes a factor per output of the selected layers and the head trainable, freezes the rest.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.

    Raises:
        InputError: a selected layer is a convolution, or as in `select_layers`.
    """
    probe(detector)
    chosen = select_layers(detector, patterns)
    if convolutions := [name for name, layer in chosen.items() if isinstance(layer, nn.Conv2d)]:
        raise InputError(
            f"method=ia3 scales linear layers, and {convolutions[0]} is a convolution",
            "choose other layers with method.patterns=[...]",
        )
    inject(detector.backbone, list(chosen), lambda _, layer: ScaledLinear(layer))
    return Adaptation()


class ScaledLinear(nn.Module):
    """A frozen linear layer with a trainable factor per output: W_eff = diag(scale) W.

    Args:
        layer: the pretrained layer.
    """

    kind: ClassVar[str] = "ia3"
    frozen: Tensor

    def __init__(self, layer: Matrix) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.weight.shape[:2]
        self.register_buffer("frozen", layer.weight.detach(), persistent=False)
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        )
        self.scale = nn.Parameter(layer.weight.new_ones(self.out_features))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The effective matrix, which some backbones read instead of calling the layer."""
        return self.scale[:, None] * self.frozen

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Computes the plain layer's output under the effective weight."""
        product = functional.linear(x, self.frozen) * self.scale
        return product if self.bias is None else product + self.bias

    def fold(self) -> Matrix:
        """The plain layer with the effective weight."""
        return plain_layer(self.weight, self.bias, None)

    def describe(self) -> dict[str, Any]:
        """The arguments of `rebuild`: none."""
        return {}

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "ScaledLinear":
        """Builds the layer again over the same pretrained weight."""
        return cls(layer, **description)
