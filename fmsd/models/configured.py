"""Recognises the configured backbone of weights, for messages about weights that do not fit."""

import functools
from collections.abc import Mapping
from typing import Any

import timm
import torch
import yaml

from fmsd.package_files import CONF

SIZED = ("pos_embed",)
"""Tensors whose shape depends on the input's size."""

NOT_TIMMS = (
    "_target_",
    "_partial_",
    "defaults",
    "name",
    "size",
    "pretrained",
    "weights",
    "normalise_head",
    "mean",
    "std",
    "padding",
)
"""Keys of a configuration that are not passed to timm."""


def matching_backbones(found: Mapping[str, torch.Size]) -> list[str]:
    """The configured backbones whose tensors have these names and shapes.

    Heads and position embeddings are not compared.

    Args:
        found: names and shapes of the weights.
    """
    return [
        name
        for name, (heads, body) in backbone_shapes().items()
        if {key: shape for key, shape in found.items() if identifies_backbone(key, heads)} == body
    ]


def backbone_configs() -> dict[str, dict[str, Any]]:
    """The settings of each configured backbone; empty if the folder is missing."""
    folder = CONF / "backbone"
    files = sorted(folder.glob("[!_]*.yaml"))
    shared = yaml.safe_load((folder / "_timm.yaml").read_text(encoding="utf-8")) if files else {}
    return {file.stem: shared | yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


@functools.cache
def backbone_shapes() -> dict[str, tuple[tuple[str, ...], dict[str, torch.Size]]]:
    """The head prefixes and other tensors' shapes of each configured backbone.

    The backbones are built on the meta device.
    """
    found = {}
    for name, settings in backbone_configs().items():
        arguments = {
            key: settings["size"] if value == "${.size}" else value
            for key, value in settings.items()
            if key not in NOT_TIMMS
        }
        with torch.device("meta"):
            model = timm.create_model(
                settings["name"], pretrained=False, num_classes=1, **arguments
            )
        classifier = model.pretrained_cfg["classifier"]  # pyright: ignore[reportIndexIssue, reportArgumentType, reportOptionalSubscript]
        heads = tuple(
            f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier)
        )
        found[name] = (
            heads,
            {
                key: tensor.shape
                for key, tensor in model.state_dict().items()
                if identifies_backbone(key, heads)
            },
        )
    return found


def identifies_backbone(name: str, heads: tuple[str, ...]) -> bool:
    """Whether a tensor is outside of the heads and independent of the input's size."""
    return not name.startswith(heads) and name not in SIZED
