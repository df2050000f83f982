"""Published detectors as files: how each is recognised, and the network that its tensors belong to.

    gend            GenD (Yermakov et al., WACV 2026, arXiv 2508.06248): CLIP, DINOv3 or the
                    Perception Encoder, and a linear layer on the L2-normalised feature
    effort          Effort (Yan et al., ICML 2025, arXiv 2411.15633): CLIP with decomposed attention
    deepfakebench   CLIP, Xception and EfficientNet-B4 of DeepfakeBench (Yan et al., NeurIPS 2023,
                    arXiv 2307.01426)

All end in two outputs, [real, fake], which become one logit, their difference. A format is
recognised by one tensor of an exact name; its shape tells the size of the network. Size, mean and
std of the input are those of the code that the files were published with: of DeepfakeBench the YAML
files of its detectors, of GenD the image processor of each backbone. All were trained on aligned
crops of 256 pixels or more with a margin of 1.3.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.json_records import read_record
from fmsd.models.formats import to_timm_keys
from fmsd.models.published import head_names, log_dropped, some_names
from fmsd.state import tensor_shapes

log = logging.getLogger(__name__)

AUTO = "auto"
"""The value of `format=` by which the format is recognised."""

ADAPTER = "forensics_adapter"
"""Forensics Adapter (Cui et al., CVPR 2025, arXiv 2411.19715), which is recognised and refused."""

ADAPTER_MARK = "rec_attn_clip."
"""How names of tensors begin in Forensics Adapter: its attention over CLIP's features."""

PARALLEL = "module."
"""How all names begin that DataParallel gave."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

CLIPS = {
    (1024, 3, 14, 14): "vit_large_patch14_clip_quickgelu_224.openai",
    (768, 3, 16, 16): "vit_base_patch16_clip_quickgelu_224.openai",
    (768, 3, 32, 32): "vit_base_patch32_clip_quickgelu_224.openai",
}
"""OpenAI's CLIP by the shape of its patch embedding."""


class GenDConfig(TypedDict, total=False):
    """The keys of GenD's `config.json` that are read."""

    model_type: str
    head: str


HEADS = {"LinearNorm": True, "linear": False}
"""GenD's heads by name: whether the feature is L2-normalised."""


class Layout(NamedTuple):
    """How the tensors of a published detector are named, and the network that they belong to.

    Args:
        format: the value of `format=`.
        about: the detector's name, for records and messages.
        mark: the tensor by which it is recognised.
        network: how the names of the backbone's tensors begin.
        head: how those of the head begin; empty for a head among the backbone's tensors.
        models: the timm model by the shape of `mark`.
        size: height and width of the input in pixels.
        mean, std: of the input's normalisation.
        arguments: further settings of the backbone.
        grid: the backbone takes `img_size`, the size of the input.
        normalised: the head takes the L2-normalised feature.
        unused: pattern of the tensors that the logit does not depend on.
    """

    format: str
    about: str
    mark: str
    network: str
    head: str
    models: Mapping[tuple[int, ...], str]
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    arguments: Mapping[str, Any]
    grid: bool = False
    normalised: bool = False
    unused: str = r"(?!)"


GEND_HEAD, GEND = "model.linear.", "feature_extractor."

LAYOUTS = (
    Layout(
        "gend",
        "GenD on CLIP",
        f"{GEND}vision_model.embeddings.patch_embedding.weight",
        f"{GEND}vision_model.",
        GEND_HEAD,
        CLIPS,
        224,
        CLIP_MEAN,
        CLIP_STD,
        {},
        grid=True,
        normalised=True,
        unused=r"feature_extractor\.visual_projection\..+",
    ),
    Layout(
        "gend",
        "GenD on the Perception Encoder",
        f"{GEND}backbone.patch_embed.proj.weight",
        f"{GEND}backbone.",
        GEND_HEAD,
        {
            (1024, 3, 14, 14): "vit_pe_core_large_patch14_336.fb",
            (768, 3, 16, 16): "vit_pe_core_base_patch16_224.fb",
        },
        224,
        HALF,
        HALF,
        {"dynamic_img_size": True},  # its grid of 336 pixels is resampled in every pass
        normalised=True,
    ),
    Layout(
        "gend",
        "GenD on DINOv3",
        f"{GEND}backbone.embeddings.patch_embeddings.weight",
        f"{GEND}backbone.",
        GEND_HEAD,
        {
            (1024, 3, 16, 16): "vit_large_patch16_dinov3_qkvb.lvd1689m",
            (768, 3, 16, 16): "vit_base_patch16_dinov3_qkvb.lvd1689m",
            (384, 3, 16, 16): "vit_small_patch16_dinov3_qkvb.lvd1689m",
        },
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        {"global_pool": "token"},
        grid=True,
        normalised=True,
    ),
    Layout(
        "effort",
        "Effort",
        "backbone.encoder.layers.0.self_attn.q_proj.weight_main",
        "backbone.",
        "head.",
        {
            (1024, 1024): CLIPS[1024, 3, 14, 14],
            (768, 768): CLIPS[768, 3, 16, 16],
        },
        224,
        CLIP_MEAN,
        CLIP_STD,
        {},
        grid=True,
    ),
    Layout(
        "deepfakebench",
        "DeepfakeBench's CLIP",
        "backbone.embeddings.patch_embedding.weight",
        "backbone.",
        "head.",
        CLIPS,
        224,
        HALF,  # as its clip.yaml has it, not CLIP's own
        HALF,
        {},
        grid=True,
    ),
    Layout(
        "deepfakebench",
        "DeepfakeBench's Xception",
        "backbone.block12.rep.1.conv1.weight",
        "backbone.",
        "",
        {(728, 1, 3, 3): "legacy_xception.tf_in1k"},
        256,
        HALF,
        HALF,
        {},
    ),
    Layout(
        "deepfakebench",
        "DeepfakeBench's EfficientNet-B4",
        "backbone.efficientnet._conv_stem.weight",
        "backbone.efficientnet.",
        "backbone.last_layer.",
        {(48, 3, 3, 3): "tf_efficientnet_b4.aa_in1k"},
        256,
        HALF,
        HALF,
        {"padding": "deepfakebench"},
    ),
)
"""Where two fit, as Effort and CLIP do, the first counts."""

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
    check_choice("format", format, (AUTO, *FORMATS, ADAPTER))
    own = {name.removeprefix(PARALLEL) for name in names}
    if format == ADAPTER or any(name.startswith(ADAPTER_MARK) for name in own):
        raise InputError(
            f"{source} is of Forensics Adapter, a second network beside CLIP that fmsd does not "
            "build",
            f"import a detector of another format: {', '.join(FORMATS)}",
        )
    for layout in LAYOUTS:
        if layout.mark in own and format in (AUTO, layout.format):
            return layout
    searched = [layout for layout in LAYOUTS if format in (AUTO, layout.format)]
    marks = "; ".join(f"{layout.about}: {layout.mark}" for layout in searched)
    others = [layout for layout in LAYOUTS if layout.mark in own]
    raise InputError(
        f"{source} holds no detector of {format if format != AUTO else 'a known format'}: none of "
        f"these tensors is in it ({marks}), but {some_names(sorted(own))}",
        f"give format={others[0].format}" if others else "give the file as it was published",
    )


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
    if content.get("model_type") != "GenD" or head not in HEADS:
        what = f"head {head!r:.40}" if content.get("model_type") == "GenD" else "another model"
        raise InputError(f"{path} is of {what}, and {weights.name} beside it of GenD", remedy)
    return layout._replace(normalised=HEADS[head])


def backbone_settings(
    state: Mapping[str, Tensor], layout: Layout, given: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The settings of the backbone that a detector's tensors belong to, as a run records them.

    Args:
        given: settings of the user, which win over those of the layout.
        source: the file, for messages.

    Raises:
        InputError: the network has another width than the published ones, and no name is given; or
            the user gives weights.
    """
    if given.get("weights"):
        raise InputError(
            f"backbone.weights would have no effect: {source} has all weights", "leave it out"
        )
    shapes = tensor_shapes(state).items()
    shape = next(size for name, size in shapes if name.removeprefix(PARALLEL) == layout.mark)
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
    return settings | dict(given) | head | {"pretrained": False, "weights": None}


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
