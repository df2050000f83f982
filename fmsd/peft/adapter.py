"""Adapters: what a method changed in a pretrained backbone, as two small files.

    adapter.safetensors   trained parameters, and frozen factors that come from a decomposition
    adapter.json          format, base weights, arguments of the adapted layers, and the method

A method that trains every weight has an adapter as large as the backbone. One without a base has
all tensors, and fits any weights of its network: that of an imported detector. Nothing is pickled.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from fmsd.atomic import atomic
from fmsd.errors import InputError, reason
from fmsd.json_records import Number, PlainValue, check_record, read_record
from fmsd.models.detector import Detector, trained_batch_norms
from fmsd.peft.inject import AdaptedModule, Matrix
from fmsd.peft.layer_kinds import layer_class
from fmsd.peft.lora import LoraLinear
from fmsd.peft.subspace import SubspaceLinear
from fmsd.peft.vpt import PromptedBlock, check_prefix
from fmsd.state import StateFile, check_finite, read_fault
from fmsd.tensor_cache import tensor_bytes

ADAPTER_FORMAT = 2

TENSORS, DESCRIPTION = "adapter.safetensors", "adapter.json"

RESAMPLED = ("pos_embed", "patch_embed", "rel_pos", "relative_position")
"""Parts of the names of tensors that timm resamples to the input's size."""


class BaseWeights(TypedDict):
    """The weights that an adapter belongs to."""

    name: str
    hash: str


class Statistics(TypedDict, total=False):
    """The mean and standard deviation of each channel of the input."""

    mean: list[Number]
    std: list[Number]


class Description(TypedDict):
    """The keys of `adapter.json` that loading an adapter reads."""

    base: BaseWeights | None
    layers: dict[str, dict[str, PlainValue]]
    tensors: list[str]
    normalisation: NotRequired[Statistics]


def state_dict(detector: Detector) -> dict[str, Tensor]:
    """The tensors of an adapted backbone that may differ from its base, by timm's names.

    They are the trainable parameters, and the buffers of modules with trainable parameters.
    """
    kept = {
        name for name, parameter in detector.backbone.named_parameters() if parameter.requires_grad
    }
    norms = set(trained_batch_norms(detector))
    for prefix, module in detector.backbone.named_modules():
        if module in norms or any(parameter.requires_grad for parameter in module.parameters()):
            kept |= {
                f"{prefix}.{name}" if prefix else name
                for name, _ in module.named_buffers(recurse=False)
            }
    return {name: tensor for name, tensor in detector.backbone.state_dict().items() if name in kept}


def load_state_dict(detector: Detector, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors of `state_dict` into a detector with the same adapted layers.

    Args:
        source: the origin of the tensors, for messages.

    Raises:
        InputError: names or shapes differ.
    """
    current = state_dict(detector)
    odd = sorted(set(current) ^ set(tensors)) or [
        name for name in current if current[name].shape != tensors[name].shape
    ]
    if odd:
        raise InputError(
            f"The tensors of {source} do not fit the detector (first: {odd[0]!r})",
            "choose the backbone and method it was made with",
        )
    before = {
        layer: copy.deepcopy(layer.initial)
        for layer in detector.modules()
        if isinstance(layer, SubspaceLinear | LoraLinear)
    }
    with torch.no_grad():
        for name, tensor in tensors.items():
            current[name].copy_(tensor)
    for layer, initial in before.items():
        layer.rebase(initial)


def fingerprint(detector: Detector, weights: Mapping[str, Tensor] | None = None) -> str:
    """The SHA-256 of a backbone's weights, before a method changes them.

    The head is left out, and tensors that timm resamples to the input's size, whose last bits
    depend on the processor.

    Args:
        weights: the weights, for a detector on the meta device.
    """
    digest, head, current = hashlib.sha256(), head_name(detector), detector.backbone.state_dict()
    for name in sorted(current):
        if not name.startswith(f"{head}.") and not any(word in name for word in RESAMPLED):
            tensor = current[name] if weights is None else weights[name].to(current[name].dtype)
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def head_name(detector: Detector) -> str:
    """The name of the head in the backbone."""
    return next(
        name for name, module in detector.backbone.named_modules() if module is detector.head()
    )


def save(
    detector: Detector, folder: Path, base: Mapping[str, Any] | None, about: Mapping[str, Any]
) -> None:
    """Writes a detector's adapter, each file atomically.

    Args:
        base: name and `hash` of the base weights; None if every tensor is among the adapter's.
        about: further entries: the method and its hyper-parameters, the protocol.
    """
    layers = {
        name: {"kind": module.kind, **module.describe()}
        for name, module in detector.backbone.named_modules()
        if isinstance(module, AdaptedModule)
    }
    tensors = state_dict(detector)
    with atomic(folder / TENSORS) as partial:
        save_file(
            {name: part.detach().cpu().contiguous() for name, part in tensors.items()}, partial
        )
    write_description(detector, folder, base, layers, list(tensors), about)


def write_description(
    detector: Detector,
    folder: Path,
    base: Mapping[str, Any] | None,
    layers: Mapping[str, Any],
    tensors: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    """Writes the description beside an adapter's tensors.

    Args:
        base, about: see `save`.
        layers: kind and arguments of each adapted layer.
        tensors: names of the tensors.
    """
    description = {
        "format": ADAPTER_FORMAT,
        "base": None if base is None else dict(base),
        "layers": dict(layers),
        "tensors": list(tensors),
        "head": head_name(detector),
        "normalisation": {
            "mean": detector.mean.flatten().tolist(),
            "std": detector.std.flatten().tolist(),
        },
        **about,
    }
    with atomic(folder / DESCRIPTION) as partial:
        partial.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, base_hash: str) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Reads the adapter in a folder: its description and its tensors, mapped from their file.

    Args:
        base_hash: the fingerprint of the base weights it is to be applied to.

    Raises:
        InputError: there is no adapter, or one of another format or base, or with weights that are
            not finite.
    """
    description = read_description(folder)
    try:
        tensors = StateFile(folder / TENSORS)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no adapter ({TENSORS} is missing)", "give the folder of a run"
        ) from error
    except (OSError, SafetensorError) as error:
        fault = read_fault(folder / TENSORS, error)
        raise InputError(
            f"The adapter {folder / TENSORS} cannot be read: it {fault.what}", fault.remedy
        ) from error
    if odd := sorted(set(description["tensors"]) ^ set(tensors)):
        raise InputError(
            f"The files of the adapter in {folder} do not belong together ({odd[0]!r} is in one "
            "of them only)",
            "take both from the same run",
        )
    base = description["base"]
    if base is not None and base["hash"] != base_hash:
        raise InputError(
            f"The adapter in {folder} belongs to other base weights: {base['name']} with hash "
            f"{base['hash'][:12]}, not {base_hash[:12]}",
            "give the ones it was trained on",
        )
    check_finite(tensors.items(), str(folder / TENSORS))
    return description, tensors


def check_whole(
    description: Mapping[str, Any], names: Iterable[str], backbone: nn.Module, folder: Path
) -> None:
    """Checks that an adapter without a base has every tensor of the network.

    Args:
        description: of the adapter.
        names: of its tensors.
        backbone: the network; may be on the meta device.
        folder: of the adapter, for the message.

    Raises:
        InputError: it lacks one, which would be random.
    """
    if description["base"] is not None:
        return
    if lacking := sorted(backbone.state_dict().keys() - set(names)):
        raise InputError(
            f"The adapter in {folder} has no base weights and lacks {len(lacking)} tensors of its "
            f"network (first: {lacking[0]!r})",
            "take it anew from the run that it comes from",
        )


def read_description(folder: Path) -> dict[str, Any]:
    """Reads the description of the adapter in a folder and checks the types of its entries.

    Raises:
        InputError: the description is missing, damaged, or of another format.
    """
    path, remedy = folder / DESCRIPTION, "take it anew from the run that it comes from"
    if not os.path.lexists(path):
        raise InputError(
            f"{folder} holds no adapter ({DESCRIPTION} is missing)", "give the folder of a run"
        )
    description = read_record(path, dict[str, Any], remedy)
    version = description.get("format")
    if version != ADAPTER_FORMAT:
        raise InputError(
            f"The adapter in {folder} has format {version!r:.40}, and this version reads format "
            f"{ADAPTER_FORMAT}",
            "train it again, or use the version that wrote it",
        )
    check_record(description, Description, path, remedy)
    return description


def rebuild_layer(
    layer: nn.Module,
    name: str,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    folder: Path,
) -> nn.Module:
    """Builds the adapted layer or module that replaces a plain one, with its initial directions.

    Args:
        layer, name: the plain layer or module, and its name in the backbone.
        description, tensors: of the adapter, see `read`.
        folder: of the adapter, for messages.

    Raises:
        InputError: the description does not fit the layer.
    """
    prefix = f"{name}."
    inner = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
    try:
        about = dict(description["layers"][name])
        found = layer_class(about.pop("kind"), folder / DESCRIPTION)
        if not hasattr(found, "unfoldable") and not isinstance(layer, Matrix):
            raise TypeError("it is no matrix")
        return found.rebuild(layer, about, inner)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise InputError(
            f"{folder / DESCRIPTION} is damaged: the layer {name!r} cannot be made of it "
            f"({reason(error)})",
            f"take {DESCRIPTION} and {TENSORS} anew from one run",
        ) from error


def load(detector: Detector, folder: Path) -> dict[str, Any]:
    """Applies the adapter in a folder to a detector with base weights; returns its description.

    Training can go on: modules, trainable parameters and initial directions are restored.

    Raises:
        InputError: there is no adapter, one of another format or base, or its tensors do not fit.
    """
    description, tensors = read(folder, fingerprint(detector))
    check_whole(description, tensors, detector.backbone, folder)
    modules = dict(detector.backbone.named_modules())
    for name in description["layers"]:
        layer = modules.get(name, nn.Identity())  # which `rebuild_layer` refuses
        adapted = rebuild_layer(layer, name, description, tensors, folder)
        if isinstance(adapted, PromptedBlock):
            check_prefix(adapted, name, detector.backbone, folder / DESCRIPTION)
        detector.backbone.set_submodule(name, adapted)
    detector.requires_grad_(False)
    for name, parameter in detector.backbone.named_parameters():
        parameter.requires_grad_(name in tensors)
    load_state_dict(detector, tensors, str(folder / TENSORS))
    return description
