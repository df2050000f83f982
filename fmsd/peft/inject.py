"""Surgery on module trees: which layers a method replaces, and how they become plain again."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.linear import Linear
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector

Matrix = nn.Linear | nn.Conv2d
"""A layer with one weight matrix: a linear layer, or a pointwise (1 x 1) convolution."""

PLAIN = (nn.Linear, Linear, nn.Conv2d, Conv2dSame)
"""Classes whose forward pass is the matrix product alone.

timm's two differ from torch's only in tracing and padding.
"""

PATTERNS: dict[str, tuple[str, ...]] = {
    "attention": (
        "*attn.qkv",
        "*attn.[qkv]",
        "*attn.kv",
        "*attn.[qkv]_proj",
        "*attn.proj",
        "*attn.out_proj",
        "*attn_pool.q",
        "*attn_pool.kv",
        "*attn_pool.proj",
    ),
    "mlp": ("*mlp.fc[12]", "*mlp.fc1_[gx]", "*mlp.w[123]", "*mlp.w12"),
}
"""Shell patterns behind the keywords of `select_layers`, for timm's layer names.

A third keyword, `pointwise`, stands for every pointwise convolution.
"""

FUSED = {"qkv": 3, "kv": 2}
"""Number of matrices in layers that stack several: timm fuses query, key and value."""


@runtime_checkable
class AdaptedModule(Protocol):
    """A module with which a method replaces one of the backbone: a layer, an MLP or a block.

    It either folds, as an `AdaptedLayer`, or is an `UnfoldableModule`.
    """

    kind: ClassVar[str]
    """The name of the class in adapter files."""

    def describe(self) -> dict[str, Any]:
        """The arguments of `rebuild`, as JSON values."""
        ...

    @classmethod
    def rebuild(
        cls, layer: Any, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> nn.Module:
        """Builds the module that `describe` described.

        Args:
            layer: the pretrained module: of an `AdaptedLayer` always a `Matrix`, of an
                `UnfoldableModule` any that an adapter's file names.
            description: the arguments.
            tensors: the adapted module's tensors in the adapter's file.

        Raises:
            TypeError: the module is none that this class replaces.
        """
        ...


@runtime_checkable
class AdaptedLayer(AdaptedModule, Protocol):
    """A layer that replaces a plain one, and that a plain one can replace again."""

    def fold(self) -> nn.Module:
        """The plain layer of equal outputs."""
        ...


@runtime_checkable
class UnfoldableModule(AdaptedModule, Protocol):
    """A module of which no weights of the plain backbone compute the outputs.

    A run with such modules can do everything but be folded or merged.
    """

    unfoldable: ClassVar[str]
    """Why, as a clause for messages: `the experts of method=moe_lora are chosen per token`."""


def matrix_layers(model: nn.Module) -> dict[str, Matrix]:
    """Every linear layer and pointwise convolution by its name, in module order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or _pointwise(module)
    }  # pyright: ignore[reportReturnType]


def stack_size(name: str) -> int:
    """The number of matrices that a layer stacks, by its name."""
    return FUSED.get(name.rpartition(".")[2], 1)


def select_layers(detector: Detector, patterns: Sequence[str]) -> dict[str, Matrix]:
    """The layers of a detector's backbone, without its head, that a method adapts.

    Args:
        patterns: shell-style patterns of timm's layer names, and the keywords `attention`, `mlp`
            and `pointwise`; a pattern after a `!` excludes layers.

    Raises:
        InputError: a pattern matches no layer, or a layer that does more than multiply.
    """
    head = set(detector.head().modules())
    known = {
        name: layer for name, layer in matrix_layers(detector.backbone).items() if layer not in head
    }
    chosen: set[str] = set()
    excluded: set[str] = set()
    for pattern in patterns:
        matched = _matching_names(known, pattern.removeprefix("!"))
        if not matched:
            some = ", ".join(list(known)[:8]) or "none"
            raise InputError(
                f"The pattern {pattern!r} matches no matrix of {type(detector.backbone).__name__}",
                f"it has {some}, ...: set method.patterns=[...] to some of attention, mlp, "
                "pointwise, or to layer names",
            )
        (excluded if pattern.startswith("!") else chosen).update(matched)
    chosen -= excluded
    for name in chosen:
        if type(known[name]) not in PLAIN:
            kind = type(known[name]).__name__
            raise InputError(
                f"The layer {name!r} is a {kind}, which does more than multiply by its weight",
                f"add '!{name}' to method.patterns",
            )
    if not chosen:
        raise InputError(
            "method.patterns leaves no layer",
            "name the layers to adapt, e.g. method.patterns=[attention]",
        )
    return {name: layer for name, layer in known.items() if name in chosen}


def check_stacks(layers: Mapping[str, Matrix]) -> None:
    """Checks that layers that stack several matrices divide into these.

    Args:
        layers: by name, as `select_layers` returns them.

    Raises:
        InputError: the rows of one do not divide.
    """
    for name, layer in layers.items():
        rows, columns, parts = *layer.weight.shape[:2], stack_size(name)
        if rows % parts:
            raise InputError(
                f"The layer {name!r} ({rows} x {columns}) does not divide into {parts} matrices",
                f"add '!{name}' to method.patterns",
            )


def check_directions(
    layers: Mapping[str, Matrix], rank: int, keys: str, sliced: bool = True
) -> None:
    """Checks that every matrix has more singular directions than a method takes.

    Args:
        layers: by name, as `select_layers` returns them.
        rank: the number of directions.
        keys: the settings that determine it, for the remedy.
        sliced: count a layer that stacks several matrices as these, not as one.

    Raises:
        InputError: a matrix has too few, or as in `check_stacks` if `sliced`.
    """
    if sliced:
        check_stacks(layers)
    for name, layer in layers.items():
        rows, columns = layer.weight.shape[:2]
        parts = stack_size(name) if sliced else 1
        if rank >= min(rows // parts, columns):
            raise InputError(
                f"The layer {name!r} ({rows} x {columns}, {parts} "
                f"{'matrix' if parts == 1 else 'matrices'}) cannot give {rank} directions",
                f"lower {keys}, or add '!{name}' to method.patterns",
            )


def _matching_names(layers: Mapping[str, Matrix], pattern: str) -> set[str]:
    if pattern == "pointwise":
        return {name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    shells = PATTERNS.get(pattern, (pattern,))
    return {name for name in layers if any(fnmatch.fnmatchcase(name, shell) for shell in shells)}


def inject(
    model: nn.Module, names: Sequence[str], replace: Callable[[str, Matrix], nn.Module]
) -> None:
    """Replaces the named layers, in place."""
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, Matrix)
        model.set_submodule(name, replace(name, layer))


def fold_layers(model: nn.Module) -> nn.Module:
    """Replaces every adapted layer by the plain layer of equal outputs, in place.

    Folding after `inject` gives the keys of the plain model. An `UnfoldableModule` stays as it is.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLayer):
            model.set_submodule(name, module.fold())
    return model


@torch.no_grad()
def plain_layer(weight: Tensor, bias: Tensor | None, stride: tuple[int, int] | None) -> Matrix:
    """Builds a linear layer of the given weight or, with a stride, a pointwise convolution."""
    rows, columns = weight.shape[:2]
    place = {"device": weight.device, "dtype": weight.dtype}
    biased = bias is not None
    layer = (
        nn.Linear(columns, rows, biased, **place)
        if stride is None
        else nn.Conv2d(columns, rows, 1, stride, bias=biased, **place)
    )
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    return layer


def _pointwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.groups == 1
        and not any(_padding(module))
    )


def _padding(convolution: nn.Conv2d) -> tuple[int, ...]:
    """The padding in pixels; `same` is none with a 1 x 1 kernel."""
    return () if isinstance(convolution.padding, str) else convolution.padding
