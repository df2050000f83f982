"""Published detectors as files: the layout of each, and the network that its tensors belong to.

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

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PAPERS = {
    "gend": "GenD, Yermakov et al., WACV 2026, arXiv 2508.06248",
    "effort": "Effort, Yan et al., ICML 2025, arXiv 2411.15633",
    "deepfakebench": "DeepfakeBench, Yan et al., NeurIPS 2023, arXiv 2307.01426",
}
"""The paper whose authors published the files of a format."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

CLIPS = {
    (1024, 3, 14, 14): "vit_large_patch14_clip_quickgelu_224.openai",
    (768, 3, 16, 16): "vit_base_patch16_clip_quickgelu_224.openai",
    (768, 3, 32, 32): "vit_base_patch32_clip_quickgelu_224.openai",
}
"""OpenAI's CLIP by the shape of its patch embedding."""


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
        positions: the tensor of positions whose grid the backbone keeps, whatever the size of the
            input; empty where it has that of the input.
        trap: what the tensors do not tell, as a sentence for the user; empty for nothing.
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
    positions: str = ""
    trap: str = ""


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
        positions=f"{GEND}backbone.pos_embed",
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
        "a DeepfakeBench detector on Xception",
        "backbone.block12.rep.1.conv1.weight",
        "backbone.",
        "",
        {(728, 1, 3, 3): "legacy_xception.tf_in1k"},
        256,
        HALF,
        HALF,
        {},
        trap="DeepfakeBench's Xception, CORE and FWA have the same tensors: which of them this is, "
        "the file does not tell; name=NAME names it.",
    ),
    Layout(
        "deepfakebench",
        "a DeepfakeBench detector on EfficientNet-B4",
        "backbone.efficientnet._conv_stem.weight",
        "backbone.efficientnet.",
        "backbone.last_layer.",
        {(48, 3, 3, 3): "tf_efficientnet_b4.aa_in1k"},
        256,
        HALF,
        HALF,
        {"padding": "deepfakebench"},
        trap="DeepfakeBench's EfficientNet-B4 and SBI have the same tensors: which of them this "
        "is, the file does not tell; name=NAME names it. SBI was trained with ImageNet's "
        "statistics: for it, give backbone.mean='[0.485,0.456,0.406]' and "
        "backbone.std='[0.229,0.224,0.225]'.",
    ),
)
"""Where two fit, as Effort and CLIP do, the first is the right one."""
