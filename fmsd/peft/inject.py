"""The only surgery on module trees: which matrices a method replaces, and how the layers become plain again."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.linear import Linear
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector

Matrix = nn.Linear | nn.Conv2d
"""A layer that is one matrix: a linear layer, or a pointwise (1 x 1) convolution."""

PLAIN = (nn.Linear, Linear, nn.Conv2d, Conv2dSame)
"""Classes whose forward pass is the matrix product and nothing else; timm's two differ from torch's in tracing and padding only."""

PATTERNS: dict[str, tuple[str, ...]] = {
    "attention": (
        *(
            "*attn.qkv",
            "*attn.[qkv]",
            "*attn.kv",
            "*attn.[qkv]_proj",
            "*attn.proj",
            "*attn.out_proj",
        ),
        *("*attn_pool.q", "*attn_pool.kv", "*attn_pool.proj"),
    ),
    "mlp": ("*mlp.fc[12]", "*mlp.fc1_[gx]", "*mlp.w[123]", "*mlp.w12"),
}
"""Words for the names that timm gives to the layers of one kind; `pointwise` stands for every pointwise convolution."""

FUSED = {"qkv": 3, "kv": 2}
"""Names of layers that stack several matrices: timm fuses query, key and value."""


@runtime_checkable
class AdaptedLayer(Protocol):
    """A layer that a method has put in the place of a plain one."""

    def fold(self) -> nn.Module:
        """The plain layer of equal outputs."""
        ...

    def describe(self) -> dict[str, Any]:
        """The arguments that make it from the plain layer, as JSON takes them."""
        ...


def matrix_layers(model: nn.Module) -> dict[str, Matrix]:
    """Every linear layer and pointwise convolution by its name, in the order of the module tree."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or _pointwise(module)
    }  # pyright: ignore[reportReturnType]


def stack_size(name: str) -> int:
    """How many matrices a layer stacks, by its name."""
    return FUSED.get(name.rpartition(".")[2], 1)


def select_layers(detector: Detector, patterns: Sequence[str]) -> dict[str, Matrix]:
    """The matrices of a detector's backbone, without its head, that a method may adapt.

    Args:
        patterns: shell-style patterns of layer names in timm's keys, and the words `attention`,
            `mlp` and `pointwise`; what follows a `!` is left out again.

    Raises:
        InputError: a pattern matches nothing, or matches a layer that does more than multiply.
    """
    head = detector.head()
    known = {
        name: layer for name, layer in matrix_layers(detector.backbone).items() if layer is not head
    }
    chosen: set[str] = set()
    left_out: set[str] = set()
    for pattern in patterns:
        word = pattern.removeprefix("!")
        shells = PATTERNS.get(word, (word,))
        found = {
            name
            for name, layer in known.items()
            if (
                isinstance(layer, nn.Conv2d)
                if word == "pointwise"
                else any(fnmatch.fnmatchcase(name, shell) for shell in shells)
            )
        }
        if not found:
            some = ", ".join(list(known)[:8]) or "none"
            raise InputError(
                f"The pattern {pattern!r} matches no matrix of {type(detector.backbone).__name__}",
                f"it has {some}, ...: set method.patterns=[...] to some of attention, mlp, "
                "pointwise, or to layer names",
            )
        (left_out if pattern.startswith("!") else chosen).update(found)
    chosen -= left_out
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


def inject(
    model: nn.Module, names: Sequence[str], replace: Callable[[str, Matrix], nn.Module]
) -> None:
    """Replaces the named layers, in place."""
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, Matrix)
        model.set_submodule(name, replace(name, layer))


def fold(model: nn.Module) -> nn.Module:
    """Turns every adapted layer into the plain layer of equal outputs, in place: fold after inject is the identity on keys."""
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLayer):
            model.set_submodule(name, module.fold())
    return model


@torch.no_grad()
def plain_layer(weight: Tensor, bias: Tensor | None, stride: tuple[int, int] | None) -> Matrix:
    """A linear layer of the given weight or, with a stride, a pointwise convolution."""
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
    """Of a 1 x 1 kernel `same` padding is none."""
    return () if isinstance(convolution.padding, str) else convolution.padding
