"""A detector: a timm backbone behind its own normalisation, ending in one logit.

Normalisation lives in the model, so data need not know the backbone and a checkpoint is self-contained. The head is timm's own
classifier with one output, so that the backbone's state dict is exactly that of `timm.create_model(name, num_classes=1)`.
"""

import difflib
import importlib.resources
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fmsd.errors import InputError, reason
from fmsd.models.formats import refusal
from fmsd.state import read_state, shapes

PACKAGE = "package:"
"""Prefix of weights that ship inside this package."""


class Detector(nn.Module):
    """Scores images: sigmoid(detector(image)) is the probability of fake.

    Args:
        backbone: a timm model with one output.
        mean, std: per-channel statistics of RGB in [0, 1] that the backbone was pretrained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Logits of RGB images: bytes, or floats in [0, 1]."""
        scaled = image if image.is_floating_point() else image.to(self.mean.dtype) / 255
        return self.backbone((scaled - self.mean) / self.std).squeeze(-1)

    def head(self) -> nn.Module:
        """The classifier layer."""
        return self.backbone.get_classifier()  # pyright: ignore[reportCallIssue]

    def train(self, mode: bool = True) -> "Detector":
        """Sets training mode, except that a frozen batch norm keeps its pretrained statistics: frozen means bit-equal."""
        super().train(mode)
        trained = set(trained_batch_norms(self))
        for module in self.modules():
            if isinstance(module, _BatchNorm) and module not in trained:
                module.eval()
        return self


def trained_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms whose statistics follow the training data: those with a trainable parameter.

    One without parameters of its own is trained where everything is, as under `method=full`.
    """
    everything = all(parameter.requires_grad for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if any(parameter.requires_grad for parameter in norm.parameters()) or (everything and not list(norm.parameters()))]


def detector(name: str, size: int, pretrained: bool = False, weights: str | Path | None = None, **arguments: Any) -> Detector:
    """Builds a detector.

    Args:
        name: a timm model name, with its pretraining tag if there is one.
        size: height and width of the input in pixels; the data module resizes to it.
        pretrained: load timm's weights from the hub.
        weights: a local safetensors or pth file in timm's keys (or a published format that timm converts), or
            `package:FILE` for weights inside this package. Takes the place of `pretrained`.
        arguments: passed to `timm.create_model`, e.g. `img_size` for backbones with a fixed grid.

    Raises:
        InputError: an unknown name, a failed download, or weights that do not fit.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        raise InputError(f"timm has no model {name!r}", f"close names: {', '.join(close) or 'none'} (all: timm.list_models())")
    try:
        backbone = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=1, **arguments)
    except TypeError as error:
        raise InputError(
            f"The backbone {name!r} does not take one of the arguments {sorted(arguments)} ({error})", "correct backbone.NAME=VALUE"
        ) from error
    except Exception as error:
        if not pretrained or weights is not None:
            raise
        raise InputError(
            f"The pretrained weights of {name!r} could not be loaded from the hub ({reason(error)})",
            "download them where there is a network and give backbone.weights=PATH",
        ) from error
    config = resolve_model_data_config(backbone)
    if weights is not None:
        load_weights(backbone, locate(weights))
    return Detector(backbone, tuple(config["mean"]), tuple(config["std"]))


def locate(weights: str | Path) -> Path:
    """The file of `weights`, which may name one inside this package (`package:demo_vit.safetensors`)."""
    text = str(weights)
    if text.startswith(PACKAGE):
        return Path(str(importlib.resources.files("fmsd.models") / text.removeprefix(PACKAGE)))
    return Path(text).expanduser()


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Loads a file into a timm model, strictly: only a classifier with another number of outputs is left out.

    Raises:
        InputError: keys or shapes differ; the sentence lists them.
    """
    state: Mapping[str, Tensor] = dict(read_state(path))
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, backbone)
    own = backbone.state_dict()
    classifier = backbone.pretrained_cfg.get("classifier") or ()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    fits = all(key in state and state[key].shape == own[key].shape for key in own if key.startswith(heads))
    if not fits:
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wanted, found = shapes({key: value for key, value in own.items() if fits or not key.startswith(heads)}), shapes(state)
    if found != wanted:
        raise refusal(found, wanted, backbone, str(path))
    for key, value in state.items():
        own[key].copy_(value)


def skeleton(make: Callable[..., Detector]) -> Detector:
    """The detector that `make` makes, without weights: names, shapes and types of its modules, at no cost in memory.

    Args:
        make: a partial of `detector`.
    """
    with torch.device("meta"):
        empty = make(weights=None, pretrained=False).backbone
    config = resolve_model_data_config(empty)
    return Detector(empty, tuple(config["mean"]), tuple(config["std"]))
