"""Published detectors in timm's keys with one logit, so that they can be merged with our own or compared to them.

DeepfakeBench (Yan et al. 2023, arXiv:2307.01426) saves a backbone under `backbone.` and a head of
two outputs, [real, fake]. Of its detectors those are understood here whose network timm has too:
Xception, CLIP's vision tower, and Effort (Yan et al. 2025, arXiv:2411.15633), which is CLIP with
decomposed attention. Its EfficientNet-B4 is not: it pads its convolutions otherwise than timm's,
and the same weights would score differently. None of these files holds the mean and std that images
were normalised with.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.configured import SIZED, matching_backbones
from fmsd.state import check_values, tensor_shapes

log = logging.getLogger(__name__)

WRAPPERS = (
    "module.",
    "_orig_mod.",
    "backbone.",
    "model.",
    "net.",
    "network.",
    "encoder.",
    "detector.",
    "vision_model.",
)
"""Attributes that hold a whole network: of DataParallel, torch.compile, DeepfakeBench, Hugging Face and trainers of many kinds."""

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
XCEPTION = Format(
    "DeepfakeBench's Xception", mark="block12.rep.1.conv1.weight", unused=r"adjust_channel\..+"
)


def to_timm_keys(
    state: Mapping[str, Tensor], model: nn.Module, source: str
) -> Mapping[str, Tensor]:
    """A published detector's state dict in the keys of a timm model with one output.

    A state dict that fits is returned as it is, and no tensor of it is read. A head of two outputs,
    [real, fake], becomes their difference: sigmoid(fake - real) is the softmax of fake.

    Args:
        model: names and shapes are taken from it; it may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: a head with another number of outputs, keys or shapes that differ (the sentence
            lists them), several networks, or quantised weights.
    """
    own = model.state_dict()
    wanted = tensor_shapes(own)
    check_values(state, own, source)
    if tensor_shapes(state) == wanted:
        return state
    inner = _unwrapped(state, network_prefix(state, model, source), model)
    found = _one_logit(_known_names(inner, model, source), model, wanted, source)
    if (
        found.keys() != wanted.keys()
    ):  # where only shapes differ, the conversion would resample a ViT's patches
        found = _one_logit(_converted(found, model, source), model, wanted, source)
    check_values(found, own, source)
    if tensor_shapes(found) != wanted:
        raise mismatch_error(tensor_shapes(found), wanted, model, source, tensor_shapes(inner))
    return {name: found[name] for name in wanted}


def to_pretrained_keys(
    state: Mapping[str, Tensor], model: nn.Module, source: str
) -> dict[str, Tensor]:
    """A pretrained network's state dict in the keys of a timm model, to begin a training with.

    Left out are a head with another number of outputs or of the other kind (plain or cosine), and
    what lies beside the network in the file. Where shapes differ, timm's own conversion is tried,
    which resamples a grid of positions to the model's size.

    Args:
        model: names and shapes are taken from it; it may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: keys or shapes that differ (the sentence lists them), several networks, or
            quantised weights.
    """
    own, heads = model.state_dict(), tuple(f"{head}." for head in head_names(model))
    body = {name: shape for name, shape in tensor_shapes(own).items() if not name.startswith(heads)}
    check_values(state, own, source)
    where = network_prefix(state, model, source)
    inner = _unwrapped(_inside(state, where, source), where, model)
    found = _own_head(_known_names(inner, model, source), model)
    if any(name not in found or found[name].shape != shape for name, shape in body.items()):
        found = _own_head(_converted(found, model, source), model)
    fits = all(
        name in found and found[name].shape == own[name].shape
        for name in own
        if name.startswith(heads)
    )
    if not fits:
        dropped = {
            name
            for name in found
            if name not in body and (name.startswith(heads) or HEAD.fullmatch(name))
        }
        if any(name.endswith(".weight") and found[name].shape[:1] == (1,) for name in dropped):
            log.warning(
                "%s: its head of one output is of another kind than the backbone's (see "
                "head.normalise), which begins anew.",
                source,
            )
        found = {name: tensor for name, tensor in found.items() if name not in dropped}
    check_values(found, own, source)
    wanted = tensor_shapes(own) if fits else body
    if tensor_shapes(found) != wanted:
        raise mismatch_error(tensor_shapes(found), wanted, model, source, tensor_shapes(inner))
    return found


def mismatch_error(
    found: Mapping[str, torch.Size],
    wanted: Mapping[str, torch.Size],
    model: nn.Module,
    source: str,
    original: Mapping[str, torch.Size] | None = None,
) -> InputError:
    """What is missing, unexpected or of another shape in weights that are not the model's, in one sentence.

    Args:
        original: names and shapes before timm's conversion to the model, by which a configured
            backbone is recognised.
    """
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    both = sorted(key for key in wanted.keys() & found.keys() if found[key] != wanted[key])
    about, heads = (
        f"{type(model).__name__} as configured",
        tuple(f"{head}." for head in head_names(model)),
    )
    owners = ""
    if any(
        not key.startswith(heads) and key not in SIZED for key in (*missing, *extra, *both)
    ):  # else they are of this backbone themselves
        owners = " and ".join(
            f"backbone={name}"
            for name in matching_backbones(found if original is None else original)
        )
    other = [f"{key} {tuple(found[key])} instead of {tuple(wanted[key])}" for key in both]
    lists = [
        f"{what}: {_some(keys)}"
        for what, keys in (("missing", missing), ("unexpected", extra), ("of another shape", other))
        if keys
    ]
    if owners:
        what = f"The weights {source} are those of {owners}, not of {about} ({'; '.join(lists)})"
        return InputError(what, "choose that backbone as it is, or other weights")
    return InputError(
        f"The weights {source} are not those of {about} ({'; '.join(lists)})",
        "choose the backbone they belong to",
    )


def network_prefix(state: Mapping[str, Tensor], model: nn.Module, source: str) -> str | None:
    """What the names of the network begin with in a file that may hold more than it; None where none of the known names is in it.

    Raises:
        InputError: it holds several networks of the same names.
    """
    heads, names = tuple(f"{head}." for head in head_names(model)), set(state)
    body = [name for name in model.state_dict() if not name.startswith(heads)]
    found = [
        start
        for start in _starts(names, max(body, key=len))
        if all(f"{start}{name}" in names for name in body)
    ]
    found = found or [start for known in (CLIP, XCEPTION) for start in _starts(names, known.mark)]
    if len(found) > 1:
        starts = ", ".join(repr(start) for start in sorted(found))
        raise InputError(
            f"The weights {source} hold several networks, whose names begin with {starts}",
            "save the one that you mean as a file of its own, as docs/training.md shows",
        )
    return found[0] if found else None


def _starts(names: set[str], end: str) -> list[str]:
    return [name.removesuffix(end) for name in names if name == end or name.endswith(f".{end}")]


def _some(keys: list[str], count: int = 5) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def _inside(state: Mapping[str, Tensor], where: str | None, source: str) -> Mapping[str, Tensor]:
    """Without what lies beside the network in a file; a head outside stays where the network has none of its own."""
    if not where:
        return state
    parts = where.split(".")
    around = [".".join(parts[:end]) + "." * (end > 0) for end in range(len(parts))]
    heads = [
        name
        for name in state
        if any(
            name.startswith(start) and HEAD.fullmatch(name.removeprefix(start)) for start in around
        )
    ]
    outer = [] if any(name.startswith(where) for name in heads) else heads
    kept = {
        name: tensor for name, tensor in state.items() if name.startswith(where) or name in outer
    }
    _log_dropped(
        source, f"other parts than {where.removesuffix('.')}", sorted(state.keys() - kept.keys())
    )
    return kept


def _unwrapped(
    state: Mapping[str, Tensor], where: str | None, model: nn.Module
) -> dict[str, Tensor]:
    """Without the attributes that hold all tensors, or all but the head's.

    Args:
        where: what the names of the network begin with.
    """
    inner, wrappers = dict(state), {*WRAPPERS, *(f"{part}." for part in (where or "").split("."))}
    wanted = model.state_dict().keys()
    while where != "" and inner.keys() != wanted:
        stems = {name[: name.find(".") + 1] for name in inner if not HEAD.fullmatch(name)}
        shorter = {
            name.removeprefix(stem): tensor
            for stem in stems.intersection(wrappers)
            for name, tensor in inner.items()
        }
        if len(stems) != 1 or len(shorter) < len(
            inner
        ):  # nothing to take off, or two heads would get one name
            break
        inner = shorter
        where = where.removeprefix(next(iter(stems))) if where is not None else None
    return inner


def _known_names(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """With timm's names where they are those of a published network."""
    found = _dense(state, source)
    for known in (CLIP, XCEPTION):
        if known.mark in found:
            found = _renamed(found, known, tensor_shapes(model.state_dict()), source)
            if known is CLIP:
                _warn_of_activation(model, source)
    return found


def _converted(state: Mapping[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """As timm's own conversion to the model gives them, if it has one.

    Raises:
        InputError: it fails: these conversions take for granted that a file is of their model.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    log.info("%s: trying timm's own conversion to %s.", source, type(model).__name__)
    try:
        found = dict(convert(dict(state), model))
        tensor_shapes(found)
    except Exception as error:
        raise mismatch_error(
            tensor_shapes(state), tensor_shapes(model.state_dict()), model, source
        ) from error
    return found


def _dense(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """With one weight in place of each that Effort decomposed: weight_main + U diag(S) V."""
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
        if factors:  # none where the residual has rank 0
            u, s, v = (state.pop(factor).float() for factor in factors)
            weight = weight.float() + (u * s) @ v
        state[f"{layer[1]}weight"] = weight
        dropped += [
            unused for kept in UNUSED if state.pop(unused := f"{layer[1]}{kept}", None) is not None
        ]
    _log_dropped(source, "Effort", dropped)
    return state


def _renamed(
    state: dict[str, Tensor], known: Format, wanted: Mapping[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """With timm's names and axes: q, k, v in one linear layer, and axes of length one where timm has them."""
    _log_dropped(source, known.about, [name for name in state if re.fullmatch(known.unused, name)])
    renamed = {}
    for name, tensor in _fused(
        {name: tensor for name, tensor in state.items() if not re.fullmatch(known.unused, name)}
    ).items():
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


def head_names(model: nn.Module) -> list[str]:
    """The names of a timm model's classifiers; it has more than one where two tokens are classified."""
    classifier = model.pretrained_cfg.get("classifier")  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return [classifier] if isinstance(classifier, str) else list(classifier or ())


def _own_head(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """With the head under timm's name."""
    own, heads = head_names(model), {match[1] for match in map(HEAD.fullmatch, state) if match}
    if len(own) != 1 or len(heads) != 1 or f"{own[0]}.weight" in state:
        return dict(state)
    head = f"{heads.pop()}."
    return {
        f"{own[0]}.{name.removeprefix(head)}" if name.startswith(head) else name: tensor
        for name, tensor in state.items()
    }


def _one_logit(
    state: Mapping[str, Tensor], model: nn.Module, wanted: Mapping[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """With the head under timm's name and with one output.

    Raises:
        InputError: a head that has neither one output nor two.
    """
    found = _own_head(state, model)
    for name in (f"{head}.{part}" for head in head_names(model) for part in ("weight", "bias")):
        if name not in found or name not in wanted or found[name].shape[:1] == wanted[name][:1]:
            continue
        if len(found[name]) != 2 or wanted[name][0] != 1:
            raise InputError(
                f"The weights {source} end in another head ({name} {tuple(found[name].shape)} "
                f"instead of {tuple(wanted[name])})",
                "choose a detector with one output, or with two, real and fake",
            )
        real, fake = found[name].float().split(1)
        found[name] = fake - real
        log.info("%s: %s of two outputs, real and fake, became their difference.", source, name)
    return found


def _warn_of_activation(model: nn.Module, source: str) -> None:
    if not any("quickgelu" in type(module).__name__.lower() for module in model.modules()):
        log.warning(
            "%s: OpenAI's CLIP, which DeepfakeBench builds on, computes QuickGELU, and this "
            "backbone another activation; "
            "unless the file is of another CLIP, choose a backbone with quickgelu in its name.",
            source,
        )


def _log_dropped(source: str, about: str, names: list[str]) -> None:
    if names:
        log.info(
            "%s: left out tensors of %s that its logit does not depend on: %s.",
            source,
            about,
            _some(names),
        )
