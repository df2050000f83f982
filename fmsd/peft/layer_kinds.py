"""The classes of adapted layers that an adapter's file may name.

The list is closed on purpose: an adapter may come from a stranger. It holds the layers of this
package and those that installed plugins declare as entry points of the group `fmsd.layers`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.peft.inject import AdaptedLayer, Matrix
from fmsd.peft.lora import LoraLinear
from fmsd.peft.lora_xs import LoraXsLinear
from fmsd.peft.subspace import SubspaceLinear
from fmsd.peft.svf import SvfLinear
from fmsd.plugins import plugin_layer

LAYER_KINDS: dict[str, type[AdaptedLayer]] = {
    layer.kind: layer for layer in (SubspaceLinear, LoraLinear, LoraXsLinear, SvfLinear)
}
"""The adapted layers of this package, by their kind."""


Rebuild = Callable[[Matrix, Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
"""The class method `fmsd.peft.inject.AdaptedLayer.rebuild` of a class of adapted layers."""


def rebuild_method(kind: str, source: Path) -> Rebuild:
    """The class method that rebuilds adapted layers of a kind.

    Args:
        source: the file that names it, for messages.

    Raises:
        InputError: neither this package nor an installed plugin declares the kind, or the plugin's
            class is not an `AdaptedLayer` of this kind.
    """
    if kind in LAYER_KINDS:
        return LAYER_KINDS[kind].rebuild
    found = plugin_layer(kind)
    if found is None:
        raise InputError(
            f"{source} has layers of the kind {str(kind)[:60]!r}, which neither fmsd nor an "
            "installed plugin declares",
            "install the plugin that its run was trained with",
        )
    methods = ("fold", "describe", "rebuild")
    if getattr(found, "kind", None) != kind or not all(hasattr(found, name) for name in methods):
        raise InputError(
            f"A plugin declares {found!r} as the layer {kind!r}, which is no adapted layer of that "
            "kind",
            f"give that class kind = {kind!r} and the methods {', '.join(methods)}",
        )
    return found.rebuild  # pyright: ignore[reportAttributeAccessIssue]
