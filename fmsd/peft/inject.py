"""The only surgery on module trees: which linear layers a method replaces, and how they become plain layers again."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from fmsd.models.detector import Detector
from fmsd.types import InputError

Penalty = Callable[[nn.Module], Tensor]
"""A scalar that training adds to the loss, computed from the adapted model's weights alone."""

Penalties = Mapping[str, tuple[float, Penalty]]
"""Weight and penalty under the name they are logged with."""

Method = Callable[[Detector], Penalties]
"""Makes something in a detector trainable, in place, freezes the rest, and says what its training adds to the loss."""


@runtime_checkable
class Foldable(Protocol):
    """An adapted layer that can become the plain layer it stands for."""

    def fold(self) -> nn.Module:
        """The plain layer."""
        ...


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer by its name, in the order of the module tree."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def slices(name: str) -> int:
    """How many matrices a linear layer stacks by its name: timm fuses query, key and value into `qkv`, key and value into `kv`."""
    return next((len(fused) for fused in ("qkv", "kv") if name.rpartition(".")[2] == fused), 1)


def inject(model: nn.Module, patterns: Sequence[str], replace: Callable[[str, nn.Linear], nn.Module]) -> nn.Module:
    """Replaces, in place, every linear layer whose name matches one of the shell-style patterns.

    Raises:
        InputError: no layer matches any pattern.
    """
    candidates = linears(model)
    chosen = [name for name in candidates if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        known = ", ".join(list(candidates)[:8]) or "none"
        raise InputError(
            f"The patterns {list(patterns)} match no linear layer of {type(model).__name__}; its linear layers are {known}, ...: set method.patterns."
        )
    for name in chosen:
        model.set_submodule(name, replace(name, candidates[name]))
    return model


def fold(model: nn.Module) -> nn.Module:
    """Turns every adapted layer into the plain layer of equal outputs, in place: fold after inject is the identity on keys."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Foldable):
            model.set_submodule(name, module.fold())
    return model
