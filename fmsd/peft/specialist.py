"""Specialists to be merged: a run's weights, folded layer by layer as they are asked for, and what each tensor is to the network."""

import copy
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.merge.task_vectors import Part
from fmsd.models.detector import Detector
from fmsd.models.head import CosineHead, check_head_kind
from fmsd.peft import adapter
from fmsd.peft.bitfit import is_bias
from fmsd.peft.inject import AdaptedLayer, stack_size
from fmsd.peft.norm import NORMS
from fmsd.state import tensor_shapes


class FoldedWeights(Mapping[str, Tensor]):
    """The weights of an adapted backbone as those of a plain one. What is asked for is computed; each thread keeps no more than its last layer.

    Args:
        folder: holds the adapter.
        base: the weights it belongs to.
        hash: their fingerprint.
        skeleton: the detector without weights.

    Raises:
        InputError: no adapter, or one of another backbone, base or kind of head.
    """

    def __init__(
        self,
        folder: Path,
        base: Mapping[str, Tensor],
        hash: str,  # noqa: A002
        skeleton: Detector,
    ) -> None:
        self.folder, self.base, self.skeleton = folder, base, skeleton
        self.description, self.tensors = adapter.read(folder, hash)
        head = adapter.head_name(skeleton)
        if any(
            name.startswith(f"{head}.") for name in self.tensors
        ):  # a method may leave the head as it is
            check_head_kind(self.tensors, skeleton.backbone, head, str(folder))
        own, found = tensor_shapes(skeleton.backbone.state_dict()), tensor_shapes(self.tensors)
        self.names = list(own)
        odd = [layer for layer in self.description["layers"] if f"{layer}.weight" not in own]
        odd += [name for name in found if self.owner(name) is None and found[name] != own.get(name)]
        if odd:
            raise InputError(
                f"The adapter in {folder} does not fit the backbone (first: {min(odd)!r})",
                "give the backbone it was made with",
            )
        self.last = threading.local()

    def owner(self, name: str) -> str | None:
        """The adapted layer that a tensor belongs to."""
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
    def touched(self) -> set[str]:
        """The names of the plain backbone's tensors that may differ from the base's."""
        return {name for name in self.names if name in self.tensors or self.owner(name)}

    def __getitem__(self, name: str) -> Tensor:
        """A tensor of the folded backbone."""
        layer = self.owner(name)
        if layer is None:
            return self.tensors[name] if name in self.tensors else self.base[name]
        if getattr(self.last, "layer", None) != layer:
            self.last.state, self.last.layer = self._fold(layer), layer
        return self.last.state[name.removeprefix(f"{layer}.")]

    @torch.no_grad()
    def _fold(self, name: str) -> dict[str, Tensor]:
        layer = copy.deepcopy(self.skeleton.backbone.get_submodule(name)).to_empty(device="cpu")
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


def network_parts(detector: Detector) -> dict[str, Part]:
    """What every tensor of a backbone is to the network, by the types of its modules."""
    kinds: dict[str, Part] = {}
    for prefix, module in detector.backbone.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            whole = f"{prefix}.{name}" if prefix else name
            kinds[whole] = (
                Part("matrix", stack_size(prefix))
                if name == "weight" and is_matrix(module)
                else Part("other")
            )
            if module is detector.head():
                kinds[whole] = Part(
                    "direction" if isinstance(module, CosineHead) and name == "weight" else "head"
                )
            elif name == "in_proj_weight" and isinstance(module, nn.MultiheadAttention):
                kinds[whole] = Part("matrix", 3)
        for name, buffer in module.named_buffers(recurse=False):
            kinds[f"{prefix}.{name}" if prefix else name] = Part(
                "statistic" if buffer.is_floating_point() else "counter"
            )
    affine = affine_names(detector)
    return {
        name: kinds[name]._replace(affine=kinds[name].kind == "other" and name in affine)
        for name in detector.backbone.state_dict()
    }


def affine_names(detector: Detector) -> set[str]:
    """The names of biases and of the parameters of normalisation layers."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in detector.backbone.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, NORMS) or is_bias(name, parameter)
    }


def is_matrix(module: nn.Module) -> bool:
    """Whether a module's weight is a matrix: that of a linear layer, or of a convolution in which every output sees every input."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 and not module.transposed
    )


def changed_parts(detector: Detector, touched: set[str]) -> dict[str, Part]:
    """The parts of a merged adapter: the tensors that some specialist changed, and the buffers of the modules they lie in.

    The detector's parameters are marked as learning accordingly, as `adapter.load` will mark them.
    """
    for name, parameter in detector.backbone.named_parameters():
        parameter.requires_grad_(name in touched)
    kept = adapter.state_dict(detector)
    return {name: part for name, part in network_parts(detector).items() if name in kept}
