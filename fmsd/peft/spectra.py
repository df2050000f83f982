"""Singular values of what a method teaches: the effective weights of a few layers, to be compared before and after training."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fmsd.data.manifest import evenly_spaced
from fmsd.models.detector import Detector
from fmsd.peft.inject import Adapted, matrices, slices


def watched(detector: Detector, count: int = 12) -> list[str]:
    """Names of at most `count` matrices of the backbone that learn, evenly spread from its first to its last; a bias alone does not count.

    A layer that stacks several is named with a letter for each: `blocks.0.attn.qkv.q`, `.k`, `.v`.
    """
    head, plain = detector.head(), matrices(detector.backbone)
    layers = [
        name
        for name, layer in detector.backbone.named_modules()
        if (name in plain or isinstance(layer, Adapted)) and layer is not head
    ]
    found = [
        part
        for name in layers
        if _learns(detector.backbone.get_submodule(name))
        for part in _parts(name)
    ]
    return [found[place] for place in evenly_spaced(len(found), count)] if found else []


@torch.no_grad()
def spectra(detector: Detector, names: Sequence[str]) -> dict[str, list[float]]:
    """Singular values of the effective weights that `watched` named, falling, to six digits. Folding changes none of them."""
    return {
        name: [
            float(f"{value:.6g}")
            for value in torch.linalg.svdvals(_matrix(detector, name)).tolist()
        ]
        for name in names
    }


def text(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> str:
    """Both as JSON, matrix by matrix."""
    return (
        json.dumps(
            {
                "layers": {
                    name: {"before": list(before[name]), "after": list(after[name])}
                    for name in before
                }
            }
        )
        + "\n"
    )


def _learns(layer: nn.Module) -> bool:
    return any(
        parameter.requires_grad and name != "bias" for name, parameter in layer.named_parameters()
    )


def _parts(name: str) -> list[str]:
    """The names of the matrices that a layer stacks: those of fused layers spell them."""
    return (
        [name] if slices(name) == 1 else [f"{name}.{letter}" for letter in name.rpartition(".")[2]]
    )


def _matrix(detector: Detector, name: str) -> Tensor:
    """The effective matrix of this name, in single precision."""
    layer, _, letter = name.rpartition(".")
    stacked = slices(layer) > 1
    weight = detector.backbone.get_submodule(layer if stacked else name).weight
    assert isinstance(weight, Tensor)
    whole = weight.detach().flatten(1).float()
    return whole.chunk(slices(layer))[layer.rpartition(".")[2].index(letter)] if stacked else whole
