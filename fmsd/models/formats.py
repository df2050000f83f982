"""Published detectors in timm's keys with one logit, so that they can be merged with our own or compared to them.

DeepfakeBench (Yan et al. 2023, arXiv:2307.01426) saves a backbone under `backbone.` and a head of two outputs, [real, fake]. Of its
detectors those are understood here whose network timm has too: Xception, CLIP's vision tower, and Effort (Yan et al. 2025,
arXiv:2411.15633), which is CLIP with decomposed attention. Its EfficientNet-B4 is not: it pads its convolutions otherwise than timm's,
and the same weights would score differently. None of these files holds the mean and std that images were normalised with.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.state import shapes

log = logging.getLogger(__name__)

WRAPPERS = ("module.", "backbone.", "model.", "detector.", "vision_model.")
"""Attributes that hold a whole network: of DataParallel, DeepfakeBench and Hugging Face."""

HEAD = re.compile(r"((?:head|fc|classifier|last_linear)(?:\.\d+)?)\.(?:weight|bias)")
"""The last layer by any of its names; a number follows where it stands behind a dropout."""

EFFORT = re.compile(r"(.+\.)weight_main")
"""The frozen part of a linear layer's weight in Effort."""

RESIDUAL = ("U_residual", "S_residual", "V_residual")
"""The trained part of a layer in Effort: U diag(S) V."""

UNUSED = ("U_r", "S_r", "V_r", "weight_original_fnorm", "weight_main_fnorm")
"""What Effort keeps for its losses only: the factors of `weight_main`, and norms."""


class Format(NamedTuple):
    """The names of a published network, inside its wrappers.

    Args:
        about: its name in messages.
        mark: a tensor that tells it.
        unused: a pattern of names that its logit does not depend on.
        renamed: patterns and what replaces them, in this order.
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
        (r"^pre_layrnorm\.", "norm_pre."),  # spelt so
        (r"^post_layernorm\.", "norm."),
        (r"^encoder\.layers\.", "blocks."),
        (r"\.layer_norm([12])\.", r".norm\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"\.self_attn\.qkv\.", ".attn.qkv."),
    ),
)
XCEPTION = Format("DeepfakeBench's Xception", mark="block12.rep.1.conv1.weight", unused=r"adjust_channel\..+")


def timm_keys(state: Mapping[str, Tensor], model: nn.Module, source: str) -> Mapping[str, Tensor]:
    """A published detector's state dict in the keys of a timm model with one output.

    A state dict that fits is returned as it is, and no tensor of it is read. A head of two outputs, [real, fake], becomes their
    difference: sigmoid(fake - real) is the softmax of fake.

    Args:
        model: names and shapes are taken from it; it may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: a head with another number of outputs, or keys or shapes that differ; the sentence lists them.
    """
    wanted = shapes(model.state_dict())
    if shapes(state) == wanted:
        return state
    found = _dense(_unwrapped(state, wanted), source)
    for known in (CLIP, XCEPTION):
        if known.mark in found:
            found = _renamed(found, known, wanted, source)
            if known is CLIP:
                _warn_of_activation(model, source)
    found = _one_logit(found, model, wanted, source)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if found.keys() != wanted.keys() and convert is not None:  # where only shapes differ, it would resample a ViT's patches
        log.info("%s: trying timm's own conversion to %s.", source, type(model).__name__)
        try:
            converted = convert(dict(found), model)
        except Exception as error:  # these conversions take for granted that a file is of their model
            raise refusal(shapes(found), wanted, model, source) from error
        found = _one_logit(converted, model, wanted, source)
    if shapes(found) != wanted:
        raise refusal(shapes(found), wanted, model, source)
    return {name: found[name] for name in wanted}


def refusal(found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size], model: nn.Module, source: str) -> InputError:
    """What is missing, unexpected or of another shape in weights that are not the model's, in one sentence."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    both = sorted(key for key in wanted.keys() & found.keys() if found[key] != wanted[key])
    other = [f"{key} {tuple(found[key])} instead of {tuple(wanted[key])}" for key in both]
    lists = [f"{what}: {_some(keys)}" for what, keys in (("missing", missing), ("unexpected", extra), ("of another shape", other)) if keys]
    return InputError(
        f"The weights {source} are not those of {type(model).__name__} as configured ({'; '.join(lists)})", "choose the backbone they belong to"
    )


def _some(keys: list[str], count: int = 5) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def _unwrapped(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Without the attributes that hold all tensors, or all but the head's."""
    inner = dict(state)
    while inner.keys() != wanted.keys():
        stems = {name[: name.find(".") + 1] for name in inner if not HEAD.fullmatch(name)}
        shorter = {name.removeprefix(stem): tensor for stem in stems.intersection(WRAPPERS) for name, tensor in inner.items()}
        if len(stems) != 1 or len(shorter) < len(inner):  # nothing to take off, or two heads would get one name
            break
        inner = shorter
    return inner


def _dense(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """With one weight in place of each that Effort decomposed: weight_main + U diag(S) V."""
    dropped = []
    for name in list(state):
        layer = EFFORT.fullmatch(name)
        factors = [f"{layer[1]}{factor}" for factor in RESIDUAL if f"{layer[1]}{factor}" in state] if layer else []
        if layer is None or len(factors) not in (0, len(RESIDUAL)) or f"{layer[1]}weight" in state:
            continue
        weight = state.pop(name)
        if factors:  # none where the residual has rank 0
            u, s, v = (state.pop(factor).float() for factor in factors)
            weight = weight.float() + (u * s) @ v
        state[f"{layer[1]}weight"] = weight
        dropped += [unused for kept in UNUSED if state.pop(unused := f"{layer[1]}{kept}", None) is not None]
    _log_dropped(source, "Effort", dropped)
    return state


def _renamed(state: dict[str, Tensor], known: Format, wanted: Mapping[str, torch.Size], source: str) -> dict[str, Tensor]:
    """With timm's names and axes: q, k, v in one linear layer, and axes of length one where timm has them."""
    _log_dropped(source, known.about, [name for name in state if re.fullmatch(known.unused, name)])
    renamed = {}
    for name, tensor in _fused({name: tensor for name, tensor in state.items() if not re.fullmatch(known.unused, name)}).items():
        key = name
        for pattern, new in known.renamed:
            key = re.sub(pattern, new, key)
        shape = wanted.get(key, tensor.shape)
        renamed[key] = tensor.reshape(shape) if _long(shape) == _long(tensor.shape) else tensor
    return renamed


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in list(state):
        query = re.fullmatch(r"(.+\.self_attn\.)q_proj\.(weight|bias)", name)
        parts = [f"{query[1]}{part}_proj.{query[2]}" for part in "qkv"] if query else []
        if query and all(part in state for part in parts):
            state[f"{query[1]}qkv.{query[2]}"] = torch.cat([state.pop(part) for part in parts])
    return state


def _long(shape: torch.Size) -> list[int]:
    return [length for length in shape if length != 1]


def _one_logit(state: Mapping[str, Tensor], model: nn.Module, wanted: Mapping[str, torch.Size], source: str) -> dict[str, Tensor]:
    """With the head under timm's name and with one output.

    Raises:
        InputError: a head that has neither one output nor two.
    """
    classifier = model.pretrained_cfg.get("classifier")  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    own = [classifier] if isinstance(classifier, str) else list(classifier or ())
    heads = {match[1] for match in map(HEAD.fullmatch, state) if match}
    found = dict(state)
    if len(own) == len(heads) == 1 and f"{own[0]}.weight" not in state:
        head = f"{heads.pop()}."
        found = {f"{own[0]}.{name.removeprefix(head)}" if name.startswith(head) else name: tensor for name, tensor in state.items()}
    for name in (f"{head}.{part}" for head in own for part in ("weight", "bias")):
        if name not in found or name not in wanted or found[name].shape[:1] == wanted[name][:1]:
            continue
        if len(found[name]) != 2 or wanted[name][0] != 1:
            raise InputError(
                f"The weights {source} end in another head ({name} {tuple(found[name].shape)} instead of {tuple(wanted[name])})",
                "choose a detector with one output, or with two, real and fake",
            )
        real, fake = found[name].float().split(1)
        found[name] = fake - real
        log.info("%s: %s of two outputs, real and fake, became their difference.", source, name)
    return found


def _warn_of_activation(model: nn.Module, source: str) -> None:
    if not any("quickgelu" in type(module).__name__.lower() for module in model.modules()):
        log.warning(
            "%s: OpenAI's CLIP, which DeepfakeBench builds on, computes QuickGELU, and this backbone another activation; "
            "unless the file is of another CLIP, choose a backbone with quickgelu in its name.",
            source,
        )


def _log_dropped(source: str, about: str, names: list[str]) -> None:
    if names:
        log.info("%s: left out tensors of %s that its logit does not depend on: %s.", source, about, _some(names))
