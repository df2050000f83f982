"""Published detectors: recognises the layout of a file, and converts its tensors to timm's names.

`fmsd.models.layouts` has the layouts. A format is recognised by one tensor of an exact name.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.json_records import read_record
from fmsd.models.formats import to_timm_keys
from fmsd.models.layouts import LAYOUTS, Layout
from fmsd.models.published import head_names, log_dropped, some_names
from fmsd.state import tensor_shapes

log = logging.getLogger(__name__)

AUTO = "auto"
"""The value of `format=` by which the format is recognised."""

ADAPTER_MARK = "rec_attn_clip."
"""How names of tensors begin in Forensics Adapter (Cui et al., CVPR 2025, arXiv 2411.19715).

It is recognised and refused. These are its attention over CLIP's features.
"""

PARALLEL = "module."
"""How all names begin that DataParallel gave."""


class GenDConfig(TypedDict, total=False):
    """The keys of GenD's `config.json` that are read."""

    model_type: str
    head: str


HEADS = {"LinearNorm": True, "linear": False}
"""GenD's heads by name: whether the feature is L2-normalised."""


FORMATS = tuple(dict.fromkeys(layout.format for layout in LAYOUTS))

NORMALISED = "feature"
"""The `normalise_head` of a head on the L2-normalised feature."""


def recognise_layout(names: Sequence[str], format: str, source: str) -> Layout:  # noqa: A002
    """The layout of a published detector's tensors.

    Args:
        names: of its tensors.
        format: `auto`, or the one that it must have.
        source: the file, for messages.

    Raises:
        InputError: there is no such format, or the file has another one or none of them.
    """
    check_choice("format", format, (AUTO, *FORMATS))
    own = {name.removeprefix(PARALLEL) for name in names}
    if any(name.startswith(ADAPTER_MARK) for name in own):
        raise InputError(
            f"{source} is of Forensics Adapter, a second network beside CLIP that fmsd does not "
            "build",
            f"import a detector of another format: {', '.join(FORMATS)}",
        )
    layout = next((layout for layout in LAYOUTS if layout.mark in own), None)
    if layout is None:
        searched = [layout for layout in LAYOUTS if format in (AUTO, layout.format)]
        marks = "; ".join(f"{layout.about}: {layout.mark}" for layout in searched)
        kind = format if format != AUTO else "a known format"
        raise InputError(
            f"{source} holds no detector of {kind}: none of these tensors is in it ({marks}), but "
            f"{some_names(sorted(own))}",
            "give the file as it was published",
        )
    if format not in (AUTO, layout.format):
        raise InputError(
            f"{source} is a file of {layout.about}, not of format={format}",
            f"give format={layout.format}",
        )
    return layout


def read_gend_head(layout: Layout, weights: Path) -> Layout:
    """The layout of a GenD file with the kind of its head, which stands in a file beside it.

    Both kinds have the same tensors. The layout of another detector is returned as it is.

    Args:
        weights: the file; GenD's `config.json` lies beside it on the Hub.

    Raises:
        InputError: the file beside it is not GenD's, or names another head.
    """
    if layout.format != "gend":
        return layout
    path = weights.with_name("config.json")
    if not path.is_file():
        log.warning(
            "There is no %s, which tells GenD's head: it is taken for a linear layer on the "
            "L2-normalised feature, as in the paper.",
            path,
        )
        return layout
    remedy = "download it anew from where the weights are from, or put it elsewhere"
    content = read_record(path, GenDConfig, remedy)
    head = content.get("head", "linear")  # GenD's default, which may be left out
    kind = content.get("model_type")
    if kind != "GenD" or head not in HEADS:
        key, value, expected = (
            ("model_type", kind, ["GenD"]) if kind != "GenD" else ("head", head, list(HEADS))
        )
        raise InputError(
            f"{path} has {key}={value!r:.40} instead of {' or '.join(expected)}, and "
            f"{weights.name} beside it is a file of GenD",
            remedy,
        )
    return layout._replace(normalised=HEADS[head])


def backbone_settings(
    state: Mapping[str, Tensor], layout: Layout, given: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The settings of the backbone that a detector's tensors belong to, as a run records them.

    Args:
        given: settings of the user, which win over those of the layout but for the size of a grid
            that the tensors tell.
        source: the file, for messages.

    Raises:
        InputError: the network has another width than the published ones, and no name is given; or
            the user gives weights.
    """
    if given.get("weights"):
        raise InputError(
            f"backbone.weights would have no effect: {source} has all weights", "leave it out"
        )
    shapes = {name.removeprefix(PARALLEL): shape for name, shape in tensor_shapes(state).items()}
    shape = shapes[layout.mark]
    name = given.get("name") or layout.models.get(tuple(shape))
    if name is None:
        known = ", ".join(str(each) for each in layout.models)
        raise InputError(
            f"{source} is of {layout.about}, but not of its published size: {layout.mark} has the "
            f"shape {tuple(shape)} instead of {known}",
            "give the timm model that it belongs to as backbone.name=NAME",
        )
    size = given.get("size") or layout.size
    settings = {"name": name, "size": size} | ({"img_size": size} if layout.grid else {})
    settings |= {"mean": list(layout.mean), "std": list(layout.std), **layout.arguments}
    head = {"normalise_head": NORMALISED} if layout.normalised else {}
    fixed: dict[str, Any] = {"pretrained": False, "weights": None}
    if layout.positions in shapes:  # a class token may be among them
        fixed["img_size"] = math.isqrt(shapes[layout.positions][-2]) * shape[-1]
    return settings | dict(given) | head | fixed


def convert_detector(
    state: Mapping[str, Tensor], layout: Layout, backbone: nn.Module, source: str
) -> Mapping[str, Tensor]:
    """The tensors of a published detector in the keys of a timm model with one output.

    Args:
        backbone: gives names and shapes; may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: names or shapes differ (the message lists them), or weights are quantised.
    """
    own = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    if len(own) < len(state):
        raise InputError(
            f"{source} holds two networks, one of them below {PARALLEL!r}",
            "save the one that you mean as a file of its own",
        )
    dropped = [name for name in own if re.fullmatch(layout.unused, name)]
    log_dropped(source, layout.about, dropped)
    head = head_names(backbone)[0] + (".linear" if layout.normalised else "")
    inner = {}
    for name, tensor in own.items():
        if name in dropped:
            continue
        if layout.head and name.startswith(layout.head):
            name = f"{head}.{name.removeprefix(layout.head)}"  # noqa: PLW2901
        inner[name.removeprefix(layout.network)] = tensor
    return to_timm_keys(inner, backbone, source)


def copy_weights(values: Mapping[str, Tensor], backbone: nn.Module) -> None:
    """Copies converted tensors into a timm model, in its own number format."""
    state = backbone.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
