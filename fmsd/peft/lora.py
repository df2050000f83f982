"""Low-rank adaptation: a trainable low-rank update of every frozen matrix.

LoRA: Hu et al., ICLR 2022, arXiv 2106.09685. DoRA: Liu et al., ICML 2024, arXiv 2402.09353.
PiSSA: Meng et al., NeurIPS 2024, arXiv 2404.02948. MiLoRA: Wang et al., NAACL 2025, arXiv
2406.09044. rsLoRA: Kalajdzievski, 2023, arXiv 2312.03732.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd.checks import check_choice, check_dropout, check_factor
from fmsd.console import track
from fmsd.errors import InputError
from fmsd.linalg import DirectionSplit
from fmsd.models.detector import Detector
from fmsd.peft.inject import Matrix, check_directions, inject, plain_layer, select_layers
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe
from fmsd.peft.svd_cache import cached_directions

log = logging.getLogger(__name__)

Init = Literal["kaiming", "gaussian", "pissa", "milora"]
"""How A and B start.

`kaiming` and `gaussian`: A is random and B is zero. A is uniform as in the released code of LoRA
(`kaiming`), or normal (`gaussian`) as its paper says, with the standard deviation 1 / rank of the
peft package, since the paper gives none. `pissa` and `milora`: B A is the part of the pretrained
matrix with the largest or smallest singular values, and the rest of the matrix is frozen.
"""

Scaling = Literal["standard", "rslora"]
"""The factor of the update: alpha / rank, or alpha / sqrt(rank)."""

SPLITS: dict[Init, DirectionSplit] = {"pissa": "top", "milora": "tail"}
"""The singular directions with which an update starts."""


def lora(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    dora: bool = False,
    init: Init = "kaiming",
    scaling: Scaling = "standard",
) -> Adaptation:
    """Makes low-rank updates of the selected layers and the head trainable, and freezes the rest.

    Args:
        patterns: layers to adapt, see `fmsd.peft.inject.select_layers`.
        rank: rank of the update, at least 1.
        alpha: the update is scaled by alpha / rank; above 0.
        dropout: dropout probability of the update's input in training, in [0, 1); 0 with `pissa`
            and `milora`, whose update starts as a part of the pretrained function.
        dora: train the length of every row of the weight too.
        init: how the update starts.
        scaling: the update is scaled by alpha / rank, or with `rslora` by alpha / sqrt(rank).

    Raises:
        InputError: an argument is out of range, the rank is above the smaller side of every
            matrix, a matrix has too few singular directions for `init`, or as in `select_layers`.
    """
    check_choice("method.init", init, get_args(Init))
    check_choice("method.scaling", scaling, get_args(Scaling))
    if rank < 1:
        raise InputError(f"method.rank={rank} is out of range", "give at least 1")
    check_factor("method.alpha", alpha, "updates", "twice the rank")
    check_dropout(dropout)
    if dropout and init in SPLITS:
        raise InputError(
            f"method.dropout={dropout} would act on the part of the pretrained weight with which "
            f"an update of method.init={init} starts",
            "set it to 0, or take method.init=kaiming or gaussian",
        )
    layers = select_layers(detector, patterns)
    if init in SPLITS:
        check_directions(layers, rank, "method.rank", sliced=False)
    else:
        _check_rank(layers, rank)
    probe(detector)
    for name in track(list(layers), "Adding updates", len(layers), "layers"):
        inject(
            detector.backbone,
            [name],
            lambda _, layer: LoraLinear(layer, rank, alpha, dropout, dora, init, scaling),
        )
    return Adaptation()


def _check_rank(layers: Mapping[str, Matrix], rank: int) -> None:
    """Refuses a rank above the smaller side of every layer; warns if it is above that of some.

    The narrow squeeze layers of a CNN have fewer channels than a rank that suits the others.
    """
    sides = {name: min(layer.weight.shape[:2]) for name, layer in layers.items()}
    narrow = [name for name, side in sides.items() if side < rank]
    if len(narrow) == len(sides):
        widest = max(narrow, key=sides.__getitem__)
        raise InputError(
            f"method.rank={rank} is above the smaller side of every adapted layer, at most "
            f"{sides[widest]} ({widest!r})",
            f"set it to {sides[widest]} or less, or train all weights with method=full",
        )
    if narrow:
        log.warning(
            "method.rank=%d is above the smaller side of %d of %d adapted layers, e.g. of %r (%d): "
            "there the update has more trainable weights than the layer needs.",
            rank,
            len(narrow),
            len(sides),
            narrow[0],
            sides[narrow[0]],
        )


class LoraLinear(nn.Module):
    """A frozen linear layer or pointwise convolution with a trainable low-rank update.

        W_eff = W_0 + f B A                                     LoRA, f = alpha / rank
        W_eff = diag(magnitude / ||W_0 + f B A||_row) (W_0 + f B A)      DoRA

    W_0 is the pretrained matrix W less f B A at the start, and the magnitude starts at the row
    norms of W, so W_eff starts as W. In the backward pass of DoRA the norms are constants, as
    section 4.3 of its paper proposes. A layer that stacks several matrices (a fused q, k, v) is one
    matrix here, with one singular value decomposition, as in the peft package.

    With PiSSA and MiLoRA, B and A start at U sqrt(S / f) and sqrt(S / f) V^T. Both are kept as
    buffers b0 and a0, so that W_0 can be restored without a decomposition.

    Some backbones (BEiT, EVA, Swin v2) never call the layer but read its `weight`: it is the
    effective matrix, with gradients. Dropout cannot act there, for it acts on the input of the
    update.

    Args:
        layer: the pretrained layer.
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout probability of the update's input in training, 0 unless B starts at zero;
            the frozen product sees the whole input.
        dora: train a magnitude of every row of the weight.
        init, scaling: see `lora`.
        start: B and A at the start, if they are known already.
    """

    kind: ClassVar[str] = "lora"
    frozen: Tensor
    b0: Tensor | None
    a0: Tensor | None

    def __init__(
        self,
        layer: Matrix,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        dora: bool = False,
        init: Init = "kaiming",
        scaling: Scaling = "standard",
        start: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout, self.dora = rank, alpha, dropout, dora
        self.init: Init = init
        self.scaling: Scaling = scaling
        self.factor = alpha / (math.sqrt(rank) if scaling == "rslora" else rank)
        self.stride = (layer.stride[0], layer.stride[1]) if isinstance(layer, nn.Conv2d) else None
        weight = layer.weight.detach().flatten(1)
        self.out_features, self.in_features = weight.shape
        if start is None and init in SPLITS:
            start = self._singular_start(weight)
        b0, a0 = (None, None) if start is None else start
        self.register_buffer("b0", b0)
        self.register_buffer("a0", a0)
        # Not persistent, so not in adapter files: loading one needs the base weights anyway.
        self.register_buffer(
            "frozen",
            weight if start is None else weight - self.factor * (start[0] @ start[1]),
            persistent=False,
        )
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.a = nn.Parameter(
            weight.new_empty(rank, self.in_features) if start is None else start[1].clone()
        )
        self.b = nn.Parameter(
            weight.new_zeros(self.out_features, rank) if start is None else start[0].clone()
        )
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(weight, dim=1)) if dora else None
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        elif init == "gaussian":
            nn.init.normal_(self.a, std=1 / rank)

    @classmethod
    def rebuild(
        cls, layer: Matrix, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "LoraLinear":
        """Builds the layer that `describe` described, over the same pretrained weight.

        Raises:
            ValueError: an argument is unknown, or does not fit the tensors.
        """
        for key, known in (("init", Init), ("scaling", Scaling)):
            if key in description and description[key] not in get_args(known):
                raise ValueError(f"{key} {description[key]!r:.40} is unknown")
        # Checked before a tensor of that size is allocated.
        rank = description["rank"]
        if tensors["a"].shape[0] != rank:
            raise ValueError(f"rank {rank} is not that of its tensors")
        if description.get("init") not in SPLITS:
            return cls(layer, **description)
        b0, a0 = (tensors[name].to(layer.weight.device) for name in ("b0", "a0"))
        rows, columns = layer.weight.shape[:2]
        if (*b0.shape, *a0.shape) != (rows, rank, rank, columns):
            raise ValueError("b0 and a0 are not of its size")
        return cls(layer, **description, start=(b0, a0))

    def describe(self) -> dict[str, object]:
        """The arguments that, with the pretrained layer, make this layer."""
        names = ("rank", "alpha", "dropout", "dora", "init", "scaling")
        return {name: getattr(self, name) for name in names}

    def no_weight_decay(self) -> set[str]:
        """A and B that start at a part of W: decay would pull the weight away from W."""
        return set() if self.b0 is None else {"a", "b"}

    @property
    def initial(self) -> tuple[Tensor, ...]:
        """B and A at the start, if their product is a part of W."""
        return () if self.b0 is None or self.a0 is None else (self.b0, self.a0)

    @torch.no_grad()
    def rebase(self, before: tuple[Tensor, ...]) -> None:
        """Updates W_0 to loaded initial factors, so that the pretrained matrix is unchanged.

        Args:
            before: the initial factors before loading.
        """
        if not all(torch.equal(*pair) for pair in zip(self.initial, before, strict=True)):
            (b0, a0), (old_b, old_a) = self.initial, before
            self.frozen += self.factor * (old_b @ old_a - b0 @ a0)

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The effective matrix, in the shape of the plain layer's weight."""
        weight = self.frozen + self.factor * (self.b @ self.a)
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
            return self._product(x, self.bias) + self.factor * update
        # Detached before the product, not after it, so that no graph of the weight's size is kept.
        scale = _row_scale(
            self.magnitude, self.frozen + self.factor * (self.b.detach() @ self.a.detach())
        )
        y = (self._product(x, None) + self.factor * update) * self._channels(scale)
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

    def _singular_start(self, weight: Float[Tensor, "out in"]) -> tuple[Tensor, Tensor]:
        """B and A at the start: the weight in its first or last directions, less the factor."""
        u, s, vt = cached_directions(weight, self.rank, SPLITS[self.init])
        root = (s / self.factor).sqrt()
        return (u * root).to(weight.dtype), (root[:, None] * vt).to(weight.dtype)

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
