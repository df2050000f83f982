"""Weights of other origins in timm's keys: pretrained networks and published detectors.

Published detectors are converted to one logit, so that they can be merged with runs or compared to
them. `fmsd.models.published` lists those that are supported.
"""

import importlib
import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.configured import SIZED, matching_backbones
from fmsd.models.containers import network_prefix, select_network, strip_wrappers
from fmsd.models.published import HEAD_PATTERN, head_names, rename_known, some_names
from fmsd.state import check_values, tensor_shapes

log = logging.getLogger(__name__)

HEAD_TENSORS = ("weight", "bias", "linear.weight", "linear.bias")
"""Those of a plain head and of a feature head, whose outputs are reduced to one."""


def to_timm_keys(
    state: Mapping[str, Tensor], model: nn.Module, source: str
) -> Mapping[str, Tensor]:
    """Converts a published detector's state dict to the keys of a timm model with one output.

    A state dict that fits is returned unchanged, without reading its tensors. A head of two
    outputs, [real, fake], becomes their difference: sigmoid(fake - real) is the softmax of fake.

    Args:
        model: gives names and shapes; may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: the head has another number of outputs, keys or shapes differ (the message lists
            them), or the file holds several networks or quantised weights.
    """
    target = model.state_dict()
    wanted = tensor_shapes(target)
    check_values(state, target, source)
    if tensor_shapes(state) == wanted:
        return state
    inner = strip_wrappers(state, network_prefix(state, model, source), model)
    converted = _reduce_to_one_logit(rename_known(inner, model, source), model, wanted, source)
    # Not if only shapes differ: the conversion would resample a ViT's patches.
    if converted.keys() != wanted.keys():
        converted = _reduce_to_one_logit(
            _convert_by_timm(converted, model, source), model, wanted, source
        )
    check_values(converted, target, source)
    if tensor_shapes(converted) != wanted:
        raise mismatch_error(tensor_shapes(converted), wanted, model, source, tensor_shapes(inner))
    return {name: converted[name] for name in wanted}


def to_pretrained_keys(
    state: Mapping[str, Tensor], model: nn.Module, source: str
) -> dict[str, Tensor]:
    """Converts a pretrained network's state dict to the keys of a timm model, for training.

    A head with another number of outputs or of another kind (see `fmsd.models.head`) is left out,
    as is everything beside the network in the file. If shapes differ, timm's own conversion is
    tried, which resamples a grid of positions to the model's size.

    Args:
        model: gives names and shapes; may be on the meta device.
        source: the file, for messages.

    Raises:
        InputError: keys or shapes differ (the message lists them), or the file holds several
            networks or quantised weights.
    """
    target, heads = model.state_dict(), tuple(f"{head}." for head in head_names(model))
    body = {
        name: shape for name, shape in tensor_shapes(target).items() if not name.startswith(heads)
    }
    check_values(state, target, source)
    where = network_prefix(state, model, source)
    inner = strip_wrappers(select_network(state, where, source), where, model)
    converted = _rename_head(rename_known(inner, model, source), model)
    for _ in range(2):  # timm renames a Perception Encoder first, and then resamples its positions
        if _fits_body(converted, body, heads):
            break
        converted = _rename_head(_convert_by_timm(converted, model, source), model)
    fits = all(
        name in converted and converted[name].shape == target[name].shape
        for name in target
        if name.startswith(heads)
    )
    if not fits:
        dropped = {
            name
            for name in converted
            if name not in body and (name.startswith(heads) or HEAD_PATTERN.fullmatch(name))
        }
        if any(name.endswith(".weight") and converted[name].shape[:1] == (1,) for name in dropped):
            log.warning(
                "%s: its head of one output is of another kind than the backbone's (see "
                "head.normalise), which begins anew.",
                source,
            )
        converted = {name: tensor for name, tensor in converted.items() if name not in dropped}
    check_values(converted, target, source)
    wanted = tensor_shapes(target) if fits else body
    if tensor_shapes(converted) != wanted:
        raise mismatch_error(tensor_shapes(converted), wanted, model, source, tensor_shapes(inner))
    return converted


def _fits_body(
    state: Mapping[str, Tensor], body: Mapping[str, torch.Size], heads: tuple[str, ...]
) -> bool:
    """Whether a state dict has the tensors of a network's body, and beside them only a head."""
    extra = [name for name in state if name not in body and not name.startswith(heads)]
    return all(HEAD_PATTERN.fullmatch(name) for name in extra) and all(
        name in state and state[name].shape == shape for name, shape in body.items()
    )


def mismatch_error(
    found: Mapping[str, torch.Size],
    wanted: Mapping[str, torch.Size],
    model: nn.Module,
    source: str,
    original: Mapping[str, torch.Size] | None = None,
) -> InputError:
    """The error for weights that do not fit a model: what is missing, extra or misshapen.

    Args:
        found, wanted: names and shapes of the weights and of the model.
        source: the file, for messages.
        original: names and shapes before timm's conversion, by which a configured backbone is
            recognised.
    """
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    both = sorted(key for key in wanted.keys() & found.keys() if found[key] != wanted[key])
    about = f"{type(model).__name__} as configured"
    heads = tuple(f"{head}." for head in head_names(model))
    owners = ""
    # If only the head or the size differs, they are weights of this very backbone.
    if any(not key.startswith(heads) and key not in SIZED for key in (*missing, *extra, *both)):
        owners = " or ".join(
            f"backbone={name}"
            for name in matching_backbones(found if original is None else original)
        )
    other = [f"{key} {tuple(found[key])} instead of {tuple(wanted[key])}" for key in both]
    lists = [
        f"{what}: {some_names(keys)}"
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


def _convert_by_timm(
    state: Mapping[str, Tensor], model: nn.Module, source: str
) -> dict[str, Tensor]:
    """Applies timm's own conversion to the model, if there is one.

    Raises:
        InputError: the conversion fails, as these conversions do on files of other models.
    """
    convert = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    log.info("%s: trying timm's own conversion to %s.", source, type(model).__name__)
    try:
        converted = dict(convert(dict(state), model))
        tensor_shapes(converted)
    except Exception as error:
        raise mismatch_error(
            tensor_shapes(state), tensor_shapes(model.state_dict()), model, source
        ) from error
    return converted


def _rename_head(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames the head to timm's name."""
    names, heads = (
        head_names(model),
        {match[1] for match in map(HEAD_PATTERN.fullmatch, state) if match},
    )
    if len(names) != 1 or len(heads) != 1 or f"{names[0]}.weight" in state:
        return dict(state)
    head = f"{heads.pop()}."
    return {
        f"{names[0]}.{name.removeprefix(head)}" if name.startswith(head) else name: tensor
        for name, tensor in state.items()
    }


def _reduce_to_one_logit(
    state: Mapping[str, Tensor], model: nn.Module, wanted: Mapping[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """Renames the head to timm's name and reduces two outputs to their difference.

    Raises:
        InputError: the head has neither one output nor two, or its tensors have different numbers.
    """
    converted = _rename_head(state, model)
    possible = (f"{head}.{part}" for head in head_names(model) for part in HEAD_TENSORS)
    names = [name for name in possible if name in converted and name in wanted]
    outputs = {converted[name].shape[:1] for name in names}
    if all(converted[name].shape[:1] == wanted[name][:1] for name in names):
        return converted
    if outputs != {(2,)}:
        shapes = ", ".join(
            f"{name} {tuple(converted[name].shape)} instead of {tuple(wanted[name])}"
            for name in (names if len(outputs) > 1 else names[:1])
        )
        raise InputError(
            f"The weights {source} end in another head ({shapes})",
            "choose a detector with one output, or with two, real and fake",
        )
    for name in names:
        real, fake = converted[name].float().split(1)
        converted[name] = fake - real
        log.info("%s: %s of two outputs, real and fake, became their difference.", source, name)
    return converted
