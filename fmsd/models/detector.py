"""A detector: a timm backbone behind its own normalisation, ending in one logit.

Normalisation lives in the model, so data need not know the backbone and a checkpoint is
self-contained. The head is timm's own classifier with one output, so that the backbone's state dict
is exactly that of `timm.create_model(name, num_classes=1)`, or optionally a classifier of
`fmsd.models.head`, which normalises the feature.
"""

import difflib
import errno
import importlib.resources
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fmsd.checks import check_choice
from fmsd.errors import InputError, reason
from fmsd.models.efficientnet import fix_padding
from fmsd.models.formats import to_pretrained_keys
from fmsd.models.head import CosineHead, FeatureHead, HeadKind, replace_head
from fmsd.package_files import EMBEDDED
from fmsd.paths import expand_home
from fmsd.state import check_finite, read_state

FEATURE_DIMENSIONS = 2
"""Dimensions of a batch of inputs of the last layer; a batch of images has four."""


class Detector(nn.Module):
    """Scores images: sigmoid(detector(image)) is the probability of fake.

    Args:
        backbone: a timm model with one output.
        mean, std: per-channel statistics of RGB in [0, 1] that the backbone was pretrained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(
        self,
        image: UInt8[Tensor, "batch 3 height width"]
        | Float[Tensor, "batch 3 height width"]
        | Float[Tensor, "batch channels"],
    ) -> Float[Tensor, " batch"]:
        """Computes the logits of RGB images: bytes, or floats in [0, 1].

        Of inputs of the last layer, which have two dimensions, it computes the last layer alone.
        """
        if image.ndim == FEATURE_DIMENSIONS:
            last = self.last_layer()
            assert last is not None
            return last(image).squeeze(-1)
        scaled = image if image.is_floating_point() else image.to(self.mean.dtype) / 255
        return self.backbone((scaled - self.mean) / self.std).squeeze(-1)

    def head(self) -> nn.Module:
        """The classifier layer.

        Raises:
            InputError: the backbone has several.
        """
        classifier = self.backbone.get_classifier()  # pyright: ignore[reportCallIssue]
        if not isinstance(classifier, nn.Module):
            raise InputError(
                f"{type(self.backbone).__name__} ends in {len(classifier)} classifiers",
                "choose a backbone with a single one",
            )
        return classifier

    def last_layer(self) -> nn.Module | None:
        """The last layer with a matrix in the head; None of a head without one."""
        if isinstance(head := self.head(), FeatureHead):
            return head
        layers = [
            layer
            for layer in head.modules()
            if isinstance(layer, nn.Linear | nn.Conv2d | CosineHead)
        ]
        return layers[-1] if layers else None  # some heads pool or norm first

    def train(self, mode: bool = True) -> "Detector":
        """Sets training mode, but keeps frozen batch norms in evaluation mode.

        Their pretrained statistics stay bit-equal.
        """
        super().train(mode)
        trained = set(trained_batch_norms(self))
        for module in self.modules():
            if isinstance(module, _BatchNorm) and module not in trained:
                module.eval()
        return self


def trained_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms whose statistics are updated: those with a trainable parameter.

    One without parameters is among them if all parameters are trainable, as under `method=full`.
    """
    everything = all(parameter.requires_grad for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [
        norm
        for norm in norms
        if any(parameter.requires_grad for parameter in norm.parameters())
        or (everything and not list(norm.parameters()))
    ]


def detector(
    name: str,
    size: int,
    pretrained: bool = False,
    weights: str | Path | None = None,
    normalise_head: HeadKind = False,
    cosine_head: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    padding: str | None = None,
    **arguments: Any,
) -> Detector:
    """Builds a detector.

    Args:
        name: a timm model name, with its pretraining tag if there is one.
        size: height and width of the input in pixels, for the data module, which resizes to it.
        pretrained: load timm's weights from the hub.
        weights: a local safetensors or pth file in timm's keys (or a published format that timm
            converts), or `package:FILE` for weights inside this package. Overrides `pretrained`.
        normalise_head: replace the classifier by one of `fmsd.models.head`: True for the cosine
            head, "feature" for the feature head.
        cosine_head: the name of `normalise_head` in runs that were recorded before it had three
            values.
        mean, std: per-channel statistics of RGB in [0, 1], three numbers; None for those that timm
            records for the model.
        padding: `deepfakebench` pads an EfficientNet as `fmsd.models.efficientnet` describes; None
            for timm's padding.
        arguments: passed to `timm.create_model`, e.g. `img_size` for backbones with a fixed grid.

    Raises:
        InputError: the name is unknown, the download fails, the weights do not fit, a normalising
            head has no linear classifier to replace, or an argument is out of range.
    """
    statistics = own_statistics(mean, std)
    check_choice("backbone.padding", padding, (None, "deepfakebench"))
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        raise InputError(
            f"timm has no model {name!r}",
            f"close names: {', '.join(close) or 'none'} (all: timm.list_models())",
        )
    check_tag(name)
    try:
        backbone = timm.create_model(
            name,
            pretrained=pretrained and weights is None,
            pretrained_cfg_overlay=statistics,
            num_classes=1,
            **arguments,
        )
    except TypeError as error:
        raise InputError(
            f"The backbone {name!r} does not take one of the arguments "
            f"{', '.join(sorted(arguments))} ({error})",
            "correct backbone.NAME=VALUE",
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        if pretrained and weights is None:
            raise hub_error(name, error) from error
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise InputError(
            f"The backbone {name!r} cannot be built with {given or 'its defaults'} "
            f"({reason(error)})",
            "correct backbone.NAME=VALUE (backbone.size=PIXELS sets the size of the input)",
        ) from error
    if padding is not None:
        fix_padding(backbone)
    if kind := normalise_head or cosine_head:
        replace_head(backbone, kind)
    config = resolve_model_data_config(backbone)
    if weights is not None:
        load_weights(backbone, weights_path(weights))
    return Detector(backbone, tuple(config["mean"]), tuple(config["std"]))


def own_statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """The statistics that replace those of timm, by their name there; empty for none.

    Raises:
        InputError: they are not three finite numbers each, or a standard deviation is not positive.
    """
    given = {"mean": mean, "std": std}
    for name, values in given.items():
        if values is None:
            continue
        fits = len(values) == 3 and all(map(math.isfinite, values))
        if not fits or (name == "std" and min(values) <= 0):
            what = "three positive numbers" if name == "std" else "three numbers"
            raise InputError(
                f"backbone.{name}={list(values)} is not {what}",
                f"give one for red, green and blue each, as backbone.{name}='[0.5,0.5,0.5]'",
            )
    return {name: tuple(values) for name, values in given.items() if values is not None}


def check_tag(name: str) -> None:
    """Raises an `InputError` if timm does not know the pretraining tag of a model's name."""
    model, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise InputError(
            f"timm {timm.__version__} has no weights {tag!r} of {model}",
            f"update timm, or choose one of: {', '.join(tags) or 'none'}",
        )


def hub_error(name: str, error: Exception) -> InputError:
    """The error for weights that timm could not load from the hub or cache."""
    if isinstance(error, OSError) and error.errno in (
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOSPC,
        errno.EDQUOT,
    ):
        return InputError(
            f"The pretrained weights of {name!r} cannot be kept in "
            f"{error.filename or 'the cache of the hub'} ({error.strerror})",
            "set HF_HOME to a folder that can be written, or download them elsewhere and give "
            "backbone.weights=PATH",
        )
    why = (
        "they are damaged, or hold other objects than tensors"
        if isinstance(error, UnpicklingError)
        else reason(error)
    )
    return InputError(
        f"The pretrained weights of {name!r} could not be loaded from the hub ({why})",
        "download them where there is a network and give backbone.weights=PATH",
    )


def weights_path(weights: str | Path) -> Path:
    """The file of `weights`, a path or `package:FILE` inside this package."""
    text = str(weights)
    if text.startswith(EMBEDDED):
        return Path(str(importlib.resources.files("fmsd.models") / text.removeprefix(EMBEDDED)))
    return expand_home(text)


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Loads a file into a timm model, strictly but for a classifier that does not fit.

    Raises:
        InputError: the file cannot be read, keys or shapes differ (the message lists them), or a
            value is not finite.
    """
    state, source = backbone.state_dict(), str(path)
    values = to_pretrained_keys(read_state(path), backbone, source)
    check_finite(values.items(), source)
    with torch.no_grad():
        for key, value in values.items():
            state[key].copy_(value)


def meta_detector(make: Callable[..., Detector]) -> Detector:
    """Builds a detector on the meta device: names, shapes and modules, without memory for weights.

    Args:
        make: a partial of `detector`.
    """
    with torch.device("meta"):
        empty = make(weights=None, pretrained=False).backbone
    config = resolve_model_data_config(empty)
    return Detector(empty, tuple(config["mean"]), tuple(config["std"]))
