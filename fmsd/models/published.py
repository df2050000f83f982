"""The names that published deepfake detectors give their tensors, translated to timm's.

DeepfakeBench (Yan et al., NeurIPS 2023, arXiv 2307.01426) saves a backbone under `backbone.` and a
head of two outputs, [real, fake]. Supported are its detectors whose network timm has too: Xception,
CLIP's vision tower, Effort (Yan et al., ICML 2025, arXiv 2411.15633), which is CLIP with decomposed
attention, and EfficientNet-B4, whose padding `fmsd.models.efficientnet` has. DINOv3 is named as
Hugging Face's is. None of these files holds the mean and std that images were normalised with:
`fmsd.models.imported` has them.
"""

import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmsd.models import efficientnet
from fmsd.state import tensor_shapes

log = logging.getLogger(__name__)

HEAD_PATTERN = re.compile(r"((?:head|fc|classifier|last_linear)(?:\.\d+)?)\.(?:weight|bias)")
"""Names of a last layer; a number follows if it is part of a sequence, as behind a dropout."""

EFFORT = re.compile(r"(.+\.)weight_main")
"""The frozen part of a linear layer's weight in Effort."""

RESIDUAL = ("U_residual", "S_residual", "V_residual")
"""The trained part of a layer in Effort: U diag(S) V."""

UNUSED = ("U_r", "S_r", "V_r", "weight_original_fnorm", "weight_main_fnorm")
"""Tensors of Effort's losses alone: the factors of `weight_main`, and norms."""


class Format(NamedTuple):
    """The tensor names of a published network.

    Args:
        about: its name in messages.
        mark: a tensor by which it is recognised.
        unused: pattern of the tensors that its logit does not depend on.
        renamed: patterns and their replacements, applied in this order.
    """

    about: str
    mark: str
    unused: str
    renamed: tuple[tuple[str, str], ...] = ()


CLIP = Format(
    "Hugging Face's CLIP",
    mark="embeddings.class_embedding",
    unused=r"embeddings\.position_ids",
    renamed=(
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^pre_layrnorm\.", "norm_pre."),  # as spelt there
        (r"^post_layernorm\.", "norm."),
        (r"^encoder\.layers\.", "blocks."),
        (r"\.layer_norm([12])\.", r".norm\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"\.self_attn\.qkv\.", ".attn.qkv."),
    ),
)


DINOV3 = Format(
    "Hugging Face's DINOv3",
    mark="embeddings.patch_embeddings.weight",
    unused=r"embeddings\.mask_token",
    renamed=(
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),  # `model.` since transformers 5
        (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.attention\.qkv\.", ".attn.qkv."),
        (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),  # its keys have no bias
        (r"\.mlp\.up_proj\.", ".mlp.fc1."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    ),
)


XCEPTION = Format(
    "DeepfakeBench's Xception", mark="block12.rep.1.conv1.weight", unused=r"adjust_channel\..+"
)


def rename_known(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Renames the tensors of a published network to timm's names; leaves those of others."""
    found = merge_effort(state, source)
    if efficientnet.MARK in found:
        return efficientnet.to_timm_names(found, model)
    for known in (CLIP, DINOV3, XCEPTION):
        if known.mark in found:
            found = _rename(found, known, tensor_shapes(model.state_dict()), source)
            if known is CLIP:
                _warn_activation(model, source)
    return found


def merge_effort(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Replaces each weight that Effort decomposed by weight_main + U diag(S) V."""
    dropped = []
    for name in list(state):
        layer = EFFORT.fullmatch(name)
        factors = (
            [f"{layer[1]}{factor}" for factor in RESIDUAL if f"{layer[1]}{factor}" in state]
            if layer
            else []
        )
        if layer is None or len(factors) not in (0, len(RESIDUAL)) or f"{layer[1]}weight" in state:
            continue
        weight = state.pop(name)
        if factors:  # none if the residual has rank 0
            u, s, v = [state.pop(factor).float() for factor in factors]
            weight = weight.float() + (u * s) @ v
        state[f"{layer[1]}weight"] = weight
        dropped += [
            unused for kept in UNUSED if state.pop(unused := f"{layer[1]}{kept}", None) is not None
        ]
    log_dropped(source, "Effort", dropped)
    return state


def _rename(
    state: dict[str, Tensor], known: Format, wanted: Mapping[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """Renames tensors, fuses q, k, v, and adds or drops axes of length one as timm has them."""
    log_dropped(source, known.about, [name for name in state if re.fullmatch(known.unused, name)])
    renamed = {}
    used = {name: state[name] for name in state if not re.fullmatch(known.unused, name)}
    for name, tensor in _fuse_qkv(used).items():
        key = name
        for pattern, new in known.renamed:
            key = re.sub(pattern, new, key)
        shape = wanted.get(key, tensor.shape)
        renamed[key] = (
            tensor.reshape(shape)
            if _nontrivial_axes(shape) == _nontrivial_axes(tensor.shape)
            else tensor
        )
    return renamed


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in list(state):
        query = re.fullmatch(r"(.+\.(?:self_attn|attention)\.)q_proj\.(weight|bias)", name)
        parts = [f"{query[1]}{part}_proj.{query[2]}" for part in "qkv"] if query else []
        if query and all(part in state for part in parts):
            state[f"{query[1]}qkv.{query[2]}"] = torch.cat([state.pop(part) for part in parts])
    return state


def _nontrivial_axes(shape: torch.Size) -> list[int]:
    return [length for length in shape if length != 1]


def _warn_activation(model: nn.Module, source: str) -> None:
    if not any("quickgelu" in type(module).__name__.lower() for module in model.modules()):
        log.warning(
            "%s: OpenAI's CLIP, which DeepfakeBench builds on, computes QuickGELU, and this "
            "backbone another activation; "
            "unless the file is of another CLIP, choose a backbone with quickgelu in its name.",
            source,
        )


def some_names(keys: list[str], count: int = 5) -> str:
    """Joins the first `count` names for a message, and says how many more there are."""
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def log_dropped(source: str, about: str, names: list[str]) -> None:
    """Logs the names of tensors that are left out.

    Args:
        source: the file.
        about: the part of the file that they belong to.
    """
    if names:
        log.info(
            "%s: left out tensors of %s that its logit does not depend on: %s.",
            source,
            about,
            some_names(names),
        )


def head_names(model: nn.Module) -> list[str]:
    """The names of a timm model's classifiers; models with two scored tokens have two."""
    classifier = model.pretrained_cfg.get("classifier")  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return [classifier] if isinstance(classifier, str) else list(classifier or ())
