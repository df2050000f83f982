"""AdaptFormer: a trainable bottleneck beside the frozen MLP of every block.

Chen et al., NeurIPS 2022, arXiv 2205.13535.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.gather_excite import GatherExcite
from timm.layers.global_context import GlobalContext
from timm.layers.mlp import ConvMlp, GatedMlp, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU
from timm.layers.pos_embed_rel import RelPosMlp
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor, nn
from torch.nn import functional

from fmsd.checks import check_dropout, check_factor
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe

MLPS = (Mlp, GluMlp, SwiGLU, GatedMlp, ConvMlp, GlobalResponseNormMlp)
"""timm's MLPs: in a block each is called with the features and returns its contribution to them."""

INNER = (
    AttentionPoolLatent,
    WindowMultiHeadAttention,
    RelPosMlp,
    GatherExcite,
    GlobalContext,
)
"""Modules whose own MLP is none of a block: of pooling, biases of positions, or channel gates."""


def adaptformer(
    detector: Detector,
    batches: Batches | None = None,
    *,
    bottleneck: int,
    scale: float,
    dropout: float = 0.1,
) -> Adaptation:
    """Makes a bottleneck beside every MLP and the head trainable, and freezes the rest.

    Args:
        bottleneck: channels between the two projections, at least 1.
        scale: factor of the bottleneck's output; above 0.
        dropout: dropout probability between the two projections in training, in [0, 1).

    Raises:
        InputError: an argument is out of range, or the backbone has no MLP of a known kind.
    """
    if bottleneck < 1:
        raise InputError(f"method.bottleneck={bottleneck} is no width", "set it to 1 or more")
    check_factor("method.scale", scale, "adapters", "0.1")
    check_dropout(dropout)
    names = mlp_names(detector)
    if not names:
        raise InputError(
            f"{type(detector.backbone).__name__} has no MLP, beside which method=adapter would put "
            "its adapters",
            "choose a transformer or ConvNeXt, or another method, e.g. method=lora",
        )
    probe(detector)
    for name in names:
        mlp = detector.backbone.get_submodule(name)
        detector.backbone.set_submodule(name, AdaptedMlp(mlp, bottleneck, scale, dropout))
    return Adaptation()


def mlp_names(detector: Detector) -> list[str]:
    """The names of the MLPs in a backbone's blocks: not those of the head or inside of `INNER`."""
    modules = dict(detector.backbone.named_modules())
    outside = [
        f"{name}."
        for name, module in modules.items()
        if module is detector.head() or isinstance(module, INNER)
    ]
    return [
        name
        for name, module in modules.items()
        if isinstance(module, MLPS) and not name.startswith(tuple(outside))
    ]


class AdaptedMlp(nn.Module):
    """A frozen MLP with a trainable bottleneck beside it.

        MLP(x) + scale * W_up dropout(relu(W_down x))

    W_up and both biases start at zero, so training starts at the pretrained model.

    Args:
        mlp: the pretrained MLP, on channels last or, if it consists of convolutions, first.
        bottleneck: channels between the projections.
        scale: factor of the bottleneck's output.
        dropout: dropout probability between the projections in training.

    Raises:
        TypeError: the module is no MLP of a known kind.
    """

    kind: ClassVar[str] = "adaptformer"
    unfoldable: ClassVar[str] = (
        "method=adapter adds bottlenecks with a nonlinearity of their own beside the MLPs"
    )

    def __init__(self, mlp: nn.Module, bottleneck: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        if not isinstance(mlp, MLPS):
            raise TypeError("it is no MLP")
        self.bottleneck, self.scale, self.dropout = bottleneck, scale, dropout
        first, last = (mlp.fc1_g if isinstance(mlp, SwiGLU) else mlp.fc1), mlp.fc2
        self.channels_first = isinstance(first, nn.Conv2d)
        weight = first.weight
        place = {"device": weight.device, "dtype": weight.dtype}
        self.mlp = mlp.requires_grad_(False)
        self.down = nn.Linear(weight.shape[1], bottleneck, **place)
        self.up = nn.Linear(bottleneck, last.weight.shape[0], **place)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    @classmethod
    def rebuild(
        cls, layer: nn.Module, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "AdaptedMlp":
        """Builds the module that `describe` described, around the same pretrained MLP.

        Raises:
            ValueError: the described bottleneck is not that of the tensors.
            TypeError: the module is no MLP of a known kind.
        """
        # Checked before a tensor of that size is allocated.
        if tensors["down.weight"].shape[0] != description["bottleneck"]:
            raise ValueError(f"bottleneck {description['bottleneck']} is not that of its tensors")
        return cls(layer, **description)

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained MLP, make this module."""
        return {"bottleneck": self.bottleneck, "scale": self.scale, "dropout": self.dropout}

    def forward(self, x: Tensor) -> Tensor:
        """Computes the MLP's output and adds the bottleneck's.

        Args:
            x: (batch, *, channels), or (batch, channels, height, width) of convolutions: the MLP's
                input, so after the block's norm.
        """
        code = functional.relu(self._project(x, self.down))
        if self.dropout:
            code = functional.dropout(code, self.dropout, self.training)
        return self.mlp(x) + self.scale * self._project(code, self.up)

    def extra_repr(self) -> str:
        """The arguments that `print(model)` shows."""
        return ", ".join(f"{name}={value}" for name, value in self.describe().items())

    def _project(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """A linear layer on the channels."""
        if self.channels_first:
            return functional.conv2d(x, layer.weight[..., None, None], layer.bias)
        return layer(x)
