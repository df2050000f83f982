"""The weights of an adapted backbone as those of a plain one, folded layer by layer on access."""

import copy
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.models.head import check_head_kind
from fmsd.peft import adapter
from fmsd.peft.inject import AdaptedLayer
from fmsd.peft.layer_kinds import check_foldable
from fmsd.state import tensor_shapes


class FoldedWeights(Mapping[str, Tensor]):
    """The weights of an adapted backbone as a plain state dict.

    A layer is folded when one of its tensors is read; each thread keeps its last one in memory.

    Args:
        folder: the folder of the adapter.
        base: the base weights of the adapter.
        hash: their fingerprint.
        empty: the detector on the meta device.

    Raises:
        InputError: there is no adapter, one of another backbone, base, kind of head or
            normalisation, or one with modules that do not fold.
    """

    def __init__(
        self,
        folder: Path,
        base: Mapping[str, Tensor],
        hash: str,  # noqa: A002
        empty: Detector,
    ) -> None:
        self.folder, self.base, self.empty = folder, base, empty
        self.description, self.tensors = adapter.read(folder, hash)
        check_foldable(self.description["layers"], folder / adapter.DESCRIPTION, "merged")
        adapter.check_whole(self.description, self.tensors, empty.backbone, folder)
        head = adapter.head_name(empty)
        # A method may leave the head unchanged.
        if any(name.startswith(f"{head}.") for name in self.tensors):
            check_head_kind(self.tensors, empty.backbone, head, str(folder))
        expected, found = tensor_shapes(empty.backbone.state_dict()), tensor_shapes(self.tensors)
        self.names = list(expected)
        odd = [layer for layer in self.description["layers"] if f"{layer}.weight" not in expected]
        odd += [
            name
            for name in found
            if self.adapted_layer(name) is None and found[name] != expected.get(name)
        ]
        if odd:
            raise InputError(
                f"The adapter in {folder} does not fit the backbone (first: {min(odd)!r})",
                "give the backbone it was made with",
            )
        check_normalisation(self.description, empty, folder)
        self.last = threading.local()

    def adapted_layer(self, name: str) -> str | None:
        """The name of the adapted layer that a tensor belongs to; None if it is plain."""
        parts = name.split(".")
        return next(
            (
                layer
                for layer in (".".join(parts[:end]) for end in range(1, len(parts)))
                if layer in self.description["layers"]
            ),
            None,
        )

    @property
    def changed_names(self) -> set[str]:
        """Names of the tensors that may differ from those of the base."""
        return {name for name in self.names if name in self.tensors or self.adapted_layer(name)}

    def __getitem__(self, name: str) -> Tensor:
        """A tensor of the folded backbone."""
        layer = self.adapted_layer(name)
        if layer is None:
            return self.tensors[name] if name in self.tensors else self.base[name]
        if getattr(self.last, "layer", None) != layer:
            self.last.state, self.last.layer = self._fold(layer), layer
        return self.last.state[name.removeprefix(f"{layer}.")]

    @torch.no_grad()
    def _fold(self, name: str) -> dict[str, Tensor]:
        layer = copy.deepcopy(self.empty.backbone.get_submodule(name)).to_empty(device="cpu")
        for key, value in layer.state_dict().items():
            value.copy_(self.base[f"{name}.{key}"])
        adapted = adapter.rebuild_layer(layer, name, self.description, self.tensors, self.folder)
        for key, value in adapted.state_dict().items():
            if (whole := f"{name}.{key}") in self.tensors:
                tensor = self.tensors[whole]
                if tensor.shape != value.shape:
                    raise InputError(
                        f"The adapter in {self.folder} is damaged: {whole} has the shape "
                        f"{tuple(tensor.shape)} instead of {tuple(value.shape)}",
                        "take it anew from the run that it comes from",
                    )
                value.copy_(tensor)
        assert isinstance(adapted, AdaptedLayer)
        return adapted.fold().state_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def check_normalisation(description: Mapping[str, Any], detector: Detector, folder: Path) -> None:
    """Checks that a detector normalises its input as the one that an adapter was made from.

    Args:
        description: of the adapter; one that does not record it passes.
        detector: may have a backbone on the meta device.
        folder: of the adapter, for the message.

    Raises:
        InputError: they differ.
    """
    recorded = description.get("normalisation") or {}
    for name, own in (("mean", detector.mean), ("std", detector.std)):
        values = own.flatten().tolist()
        other = recorded.get(name, values)
        if len(other) != len(values) or any(
            abs(one - two) > 1e-4 for one, two in zip(other, values, strict=True)
        ):
            shown = [f"{value:.4g}" for value in other]
            raise InputError(
                f"The detector in {folder} was given images of the {name} {', '.join(shown)}, and "
                f"this network takes {', '.join(f'{value:.4g}' for value in values)}",
                "use detectors together that normalise images alike",
            )
