"""Singular values of effective weights, to compare them before and after training."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fmsd.data.manifest import evenly_spaced
from fmsd.models.detector import Detector
from fmsd.peft.inject import AdaptedLayer, UnfoldableModule, matrix_layers, stack_size


def sample_matrices(detector: Detector, count: int = 12) -> list[str]:
    """The names of at most `count` trainable matrices, evenly spread over the backbone.

    Matrices of which only the bias is trained are left out, and those that a method adds beside the
    backbone's own (`fmsd.peft.inject.UnfoldableModule`). The matrices that a fused layer stacks
    are named by a letter each: `blocks.0.attn.qkv.q`, `.k`, `.v`.
    """
    head, plain = set(detector.head().modules()), matrix_layers(detector.backbone)
    modules = dict(detector.backbone.named_modules())
    added = [f"{name}." for name, part in modules.items() if isinstance(part, UnfoldableModule)]
    layers = [
        name
        for name, layer in modules.items()
        if (name in plain or isinstance(layer, AdaptedLayer))
        and layer not in head
        and not name.startswith(tuple(added))
    ]
    names = [
        part
        for name in layers
        if _has_trainable_matrix(detector.backbone.get_submodule(name))
        for part in _parts(name)
    ]
    return [names[index] for index in evenly_spaced(len(names), count)] if names else []


@torch.no_grad()
def effective_spectra(detector: Detector, names: Sequence[str]) -> dict[str, list[float]]:
    """The singular values of effective weights, falling, rounded to six digits.

    Args:
        names: of `sample_matrices`. Folding the detector does not change the result.
    """
    return {
        name: [
            float(f"{value:.6g}")
            for value in torch.linalg.svdvals(_matrix(detector, name)).tolist()
        ]
        for name in names
    }


def spectra_json(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]
) -> str:
    """The spectra before and after training as JSON, matrix by matrix."""
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


def _has_trainable_matrix(layer: nn.Module) -> bool:
    return any(
        parameter.requires_grad and name != "bias" for name, parameter in layer.named_parameters()
    )


def _parts(name: str) -> list[str]:
    """The names of the matrices that a layer stacks; its own name lists their letters."""
    return (
        [name]
        if stack_size(name) == 1
        else [f"{name}.{letter}" for letter in name.rpartition(".")[2]]
    )


def _matrix(detector: Detector, name: str) -> Tensor:
    """The effective matrix of a name of `sample_matrices`, in single precision."""
    layer, _, letter = name.rpartition(".")
    stacked = stack_size(layer) > 1
    weight = detector.backbone.get_submodule(layer if stacked else name).weight
    assert isinstance(weight, Tensor)
    whole = weight.detach().flatten(1).float()
    return (
        whole.chunk(stack_size(layer))[layer.rpartition(".")[2].index(letter)] if stacked else whole
    )
