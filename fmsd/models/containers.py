"""Finds the network's tensors in a checkpoint: behind wrappers, and beside other modules."""

from collections.abc import Mapping

from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.published import FORMATS, HEAD_PATTERN, head_names, log_dropped

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
"""Attributes under which DataParallel, torch.compile, Hugging Face and others keep a network."""


def network_prefix(state: Mapping[str, Tensor], model: nn.Module, source: str) -> str | None:
    """The prefix of the network's names in a file that may hold more than the network.

    It is None if the file has none of the known names.

    Raises:
        InputError: the file holds several networks of these names.
    """
    heads, names = tuple(f"{head}." for head in head_names(model)), set(state)
    body = [name for name in model.state_dict() if not name.startswith(heads)]
    found = [
        start
        for start in _prefixes(names, max(body, key=len))
        if all(f"{start}{name}" in names for name in body)
    ]
    found = found or [start for known in FORMATS for start in _prefixes(names, known.mark)]
    if len(found) > 1:
        starts = ", ".join(repr(start) for start in sorted(found))
        raise InputError(
            f"The weights {source} hold several networks, whose names begin with {starts}",
            "save the one that you mean as a file of its own, as docs/concepts/weights.md shows",
        )
    return found[0] if found else None


def _prefixes(names: set[str], end: str) -> list[str]:
    return [name.removesuffix(end) for name in names if name == end or name.endswith(f".{end}")]


def select_network(
    state: Mapping[str, Tensor], where: str | None, source: str
) -> Mapping[str, Tensor]:
    """The tensors of the network; a head outside of it only if it has none of its own.

    Args:
        where: prefix of the network's names; None or empty selects all tensors.
    """
    if not where:
        return state
    parts = where.split(".")
    around = [".".join(parts[:end]) + "." * (end > 0) for end in range(len(parts))]
    heads = [
        name
        for name in state
        if any(
            name.startswith(start) and HEAD_PATTERN.fullmatch(name.removeprefix(start))
            for start in around
        )
    ]
    outer = [] if any(name.startswith(where) for name in heads) else heads
    kept = {
        name: tensor for name, tensor in state.items() if name.startswith(where) or name in outer
    }
    log_dropped(
        source, f"other parts than {where.removesuffix('.')}", sorted(state.keys() - kept.keys())
    )
    return kept


def strip_wrappers(
    state: Mapping[str, Tensor], where: str | None, model: nn.Module
) -> dict[str, Tensor]:
    """Strips the wrapper prefixes that all tensors share, or all but the head's.

    Args:
        where: prefix of the network's names.
    """
    inner, wrappers = dict(state), {*WRAPPERS, *(f"{part}." for part in (where or "").split("."))}
    wanted = model.state_dict().keys()
    while where != "" and inner.keys() != wanted:
        stems = {name[: name.find(".") + 1] for name in inner if not HEAD_PATTERN.fullmatch(name)}
        shorter = {
            name.removeprefix(stem): tensor
            for stem in stems.intersection(wrappers)
            for name, tensor in inner.items()
        }
        # Stop if there is no common prefix, or two heads would get the same name.
        if len(stems) != 1 or len(shorter) < len(inner):
            break
        inner = shorter
        where = where.removeprefix(next(iter(stems))) if where is not None else None
    return inner
