"""The classes of adapted layers and modules that an adapter's file may name.

The list is closed on purpose: an adapter may come from a stranger. It holds the classes of this
package and those that installed plugins declare as entry points of the group `fmsd.layers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmsd.errors import InputError
from fmsd.peft.adaptformer import AdaptedMlp
from fmsd.peft.inject import AdaptedModule
from fmsd.peft.lora import LoraLinear
from fmsd.peft.lora_xs import LoraXsLinear
from fmsd.peft.moe_lora import RoutedLinear
from fmsd.peft.subspace import SubspaceLinear
from fmsd.peft.svf import SvfLinear
from fmsd.peft.vpt import PromptedBlock
from fmsd.plugins import plugin_layer

LAYER_KINDS: dict[str, type[AdaptedModule]] = {
    layer.kind: layer
    for layer in (
        SubspaceLinear,
        LoraLinear,
        LoraXsLinear,
        SvfLinear,
        AdaptedMlp,
        PromptedBlock,
        RoutedLinear,
    )
}
"""The adapted layers and modules of this package, by their kind."""


def layer_class(kind: str, source: Path) -> type[Any]:
    """The class of adapted layers or modules of a kind.

    Args:
        source: the file that names it, for messages.

    Raises:
        InputError: neither this package nor an installed plugin declares the kind, or the plugin's
            class is no `AdaptedLayer` or `UnfoldableModule` of this kind.
    """
    if kind in LAYER_KINDS:
        return LAYER_KINDS[kind]
    found = plugin_layer(kind)
    if found is None:
        raise InputError(
            f"{source} has layers of the kind {str(kind)[:60]!r}, which neither fmsd nor an "
            "installed plugin declares",
            "install the plugin that its run was trained with",
        )
    methods = ("fold", "describe", "rebuild")
    needed = methods[1:] if hasattr(found, "unfoldable") else methods
    if getattr(found, "kind", None) != kind or not all(hasattr(found, name) for name in needed):
        raise InputError(
            f"A plugin declares {found!r} as the layer {kind!r}, which is no adapted layer of that "
            "kind",
            f"give that class kind = {kind!r} and the methods {', '.join(methods)}",
        )
    return found


def check_foldable(
    layers: Mapping[str, Mapping[str, Any]], source: Path, action: str = "folded"
) -> None:
    """Checks that plain weights can compute what adapted layers compute.

    Args:
        layers: the entry `layers` of an adapter's description.
        source: the file that it was read from.
        action: what the command would do with the weights: `folded` or `merged`.

    Raises:
        InputError: a layer is an `fmsd.peft.inject.UnfoldableModule`.
    """
    for description in layers.values():
        kind = description.get("kind")
        found = layer_class(kind, source) if isinstance(kind, str) else None
        if (why := getattr(found, "unfoldable", None)) is not None:
            raise InputError(
                f"The weights of {source.parent} cannot be {action}, because {why}, which no "
                "weights of the plain backbone compute",
                "use the run itself (fmsd evaluate, explain, predict, export, push and fmsd.load "
                "work with it), or train a method that folds, e.g. method=lora",
            )
