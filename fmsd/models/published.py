"""The names that published networks give their tensors, translated to timm's.

Pretrained networks: Hugging Face's CLIP, SigLIP, DINOv2 and DINOv3. Those of OpenAI's CLIP and of
Meta's DINOv2, DINOv3 and Perception Encoder are translated by timm itself.

DeepfakeBench (Yan et al., NeurIPS 2023, arXiv 2307.01426) saves a backbone under `backbone.` and a
head of two outputs, [real, fake]. Supported are its detectors whose network timm has too: Xception,
CLIP's vision tower, Effort (Yan et al., ICML 2025, arXiv 2411.15633), which is CLIP with decomposed
attention, and EfficientNet-B4, whose padding `fmsd.models.efficientnet` has. None of these files
holds the mean and std that images were normalised with: `fmsd.models.layouts` has them.
"""

import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models import efficientnet
from fmsd.quoting import printable
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
        renamed: patterns and their replacements, applied in this order. They lead to timm's names,
            or to Meta's, which timm's own conversion knows.
    """

    about: str
    mark: str
    unused: str
    renamed: tuple[tuple[str, str], ...] = ()


TOWER = (
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
)
"""What the vision towers of CLIP and SigLIP have in common at Hugging Face."""

CLIP = Format(
    "Hugging Face's CLIP",
    mark="embeddings.class_embedding",
    unused=r"embeddings\.position_ids",
    renamed=(
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^pre_layrnorm\.", "norm_pre."),  # as spelt there
        *TOWER,
    ),
)

SIGLIP = Format(
    "Hugging Face's SigLIP",
    mark="head.probe",
    unused=r"embeddings\.position_ids",
    renamed=(
        (r"^head\.probe$", "attn_pool.latent"),
        (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"^head\.attention\.", "attn_pool."),
        (r"^head\.layernorm\.", "attn_pool.norm."),
        (r"^head\.mlp\.", "attn_pool.mlp."),
        *TOWER,
    ),
)

DINO = (
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.(?:attention\.)?qkv\.", ".attn.qkv."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
)
"""What DINOv2 and DINOv3 have in common at Hugging Face."""

DINOV2 = Format(
    "Hugging Face's DINOv2",
    mark="encoder.layer.0.layer_scale1.lambda1",
    unused=r"(?!)",
    renamed=(
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.(register_tokens)$", r"\1"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.weights_out\.", ".mlp.w3."),
        *DINO,
    ),
)

DINOV3 = Format(
    "Hugging Face's DINOv3",
    mark="embeddings.patch_embeddings.weight",
    unused=r"(?!)",
    renamed=(
        (r"^embeddings\.register_tokens$", "storage_tokens"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^(?:model\.)?layer\.", "blocks."),
        (r"\.mlp\.up_proj\.", ".mlp.fc1."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        *DINO,
    ),
)


XCEPTION = Format(
    "DeepfakeBench's Xception", mark="block12.rep.1.conv1.weight", unused=r"adjust_channel\..+"
)

FORMATS = (CLIP, SIGLIP, DINOV2, DINOV3, XCEPTION)

QUERIES = {"q_proj": ("k_proj", "v_proj"), "query": ("key", "value")}
"""The names of keys and values by that of queries."""


def rename_known(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Renames the tensors of a published network to timm's names; leaves those of others."""
    found = merge_effort(state, source)
    if efficientnet.MARK in found:
        return efficientnet.to_timm_names(found, model)
    for known in FORMATS:
        if known.mark in found:
            found = _rename(found, known, tensor_shapes(model.state_dict()), source)
            if known is CLIP:
                _warn_activation(model, source)
            break
    return drop_zero_biases(found, model, source)


def drop_zero_biases(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Leaves out DINOv3's biases of queries, keys and values if the model has none: they are zero.

    Raises:
        InputError: some are not.
    """
    wanted = model.state_dict().keys()
    if "storage_tokens" not in state:
        return state
    for name in [name for name in state if name.endswith(".attn.qkv.bias")]:
        layer = name.removesuffix("qkv.bias")
        if f"{layer}q_bias" in wanted or f"{layer}qkv.weight" not in wanted:
            continue
        if torch.cat(state.pop(name).chunk(3)[::2]).any():  # keys have none: theirs is not used
            raise InputError(
                f"{source} has biases of queries and values, {name} among them, and "
                f"{type(model).__name__} as configured has none",
                "choose the timm model with dinov3_qkvb in its name",
            )
    return state


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
        if key == "pos_embed" and tensor.ndim == 2:  # as timm's conversion resamples it
            tensor = tensor[None]  # noqa: PLW2901
        renamed[key] = (
            tensor.reshape(shape)
            if _nontrivial_axes(shape) == _nontrivial_axes(tensor.shape)
            else tensor
        )
    return renamed


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stacks the matrices of queries, keys and values, and their biases; keys may have none.

    Attention pooling is stored as one stack, of which timm keeps the queries apart.
    """
    for name in list(state):
        query = re.fullmatch(r"(.+\.)(q_proj|query)\.(weight|bias)", name)
        if query:
            key, value = (f"{query[1]}{part}.{query[3]}" for part in QUERIES[query[2]])
            if value in state and (key in state or query[3] == "bias"):
                first = state.pop(name)
                second = state.pop(key, torch.zeros_like(first))
                stack = torch.cat([first, second, state.pop(value)])
                state[f"{query[1]}qkv.{query[3]}"] = stack
        pooled = re.fullmatch(r"(head\.attention\.)in_proj_(weight|bias)", name)
        if pooled and len(stack := state[name]) % 3 == 0:
            del state[name]
            width = len(stack) // 3
            state[f"{pooled[1]}q.{pooled[2]}"] = stack[:width]
            state[f"{pooled[1]}kv.{pooled[2]}"] = stack[width:]
    return state


def _nontrivial_axes(shape: torch.Size) -> list[int]:
    return [length for length in shape if length != 1]


def _warn_activation(model: nn.Module, source: str) -> None:
    if not any("quickgelu" in type(module).__name__.lower() for module in model.modules()):
        log.warning(
            "%s: OpenAI's CLIP computes QuickGELU, and this backbone another activation; unless "
            "the file is of another CLIP, choose a backbone with quickgelu in its name.",
            source,
        )


def some_names(keys: list[str], count: int = 5) -> str:
    """Joins the first `count` names for a message, and says how many more there are.

    They may come from a hostile file.
    """
    return ", ".join(map(printable, keys[:count])) + (
        f" and {len(keys) - count} more" if len(keys) > count else ""
    )


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
