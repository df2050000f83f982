"""What keeps the artifact subspaces apart from the semantic one and the weight's energy where it was (FMSD, arXiv 2601.01041).

The paper names two constraints, orthogonality and spectral consistency, without public equations; these are our readings, in exact
forms that never build a matrix of the size of the weight's square. Matrices of one shape are treated in one batch.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd import linalg
from fmsd.errors import InputError
from fmsd.peft.method import Penalties, Penalty
from fmsd.peft.subspace import SubspaceLinear, subspace_layers


def orthogonality(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ||[U_sem U]^T [U_sem U] - I||_F^2 plus the same for V.

    The semantic block is constant, so this is ||U^T U - I||^2 + 2 ||U_sem^T U||^2. Where U_sem and the initial factors U0 together
    span the whole space (a matrix's shorter side), ||U_sem^T U|| is the length of what U has outside the span of U0.
    """
    return _mean(model, _orthogonality)


def spectral(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of | ||W||_F^2 - ||W0||_F^2 | / ||W0||_F^2, with W the effective and W0 the pretrained matrix."""
    return _mean(model, _spectral)


def singular_values(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ||s - s0||^2 / ||s0||^2: another reading of spectral consistency, on the free directions alone."""
    return _mean(model, _singular_values)


PENALTIES: dict[str, Penalty] = {"orthogonality": orthogonality, "spectral": spectral, "singular_values": singular_values}

WEIGHTS: Mapping[str, float] = MappingProxyType({"orthogonality": 0.1, "spectral": 0.1, "singular_values": 0.0})
"""The weight of each penalty where nothing else is asked for."""


def named(weights: Mapping[str, float]) -> Penalties:
    """The penalties with a weight above zero.

    Raises:
        InputError: an unknown name or a negative weight.
    """
    for name, weight in weights.items():
        if name not in PENALTIES or weight < 0:
            raise InputError(f"method.penalties.{name}={weight} is no penalty with a weight of at least 0", f"there are {', '.join(PENALTIES)}")
    return {name: (float(weight), PENALTIES[name]) for name, weight in weights.items() if weight > 0}


Group = list[SubspaceLinear]

TINY = 1e-30
"""Keeps the ratios of a matrix of zeros finite."""


def _mean(model: nn.Module, penalty: Callable[[Group], Float[Tensor, "layers parts"]]) -> Float[Tensor, ""]:
    groups: dict[object, Group] = {}
    for layer in subspace_layers(model):
        groups.setdefault((layer.parts, layer.out_features, layer.in_features, layer.semantic.device), []).append(layer)
    return torch.cat([penalty(group).flatten() for group in groups.values()]).mean()


def _orthogonality(group: Group) -> Float[Tensor, "layers parts"]:
    initial = [layer.initial for layer in group]
    left = _side([layer.u for layer in group], [factors.u for factors in initial], [layer.u_range for layer in group])
    return left + _side([layer.v.mT for layer in group], [factors.vt.mT for factors in initial], [layer.v_range for layer in group])


def _side(factors: list[Tensor], initial: list[Tensor], spans: list[Tensor | None]) -> Float[Tensor, "layers parts"]:
    stacked = torch.stack(factors)
    outside = linalg.orthonormal_complement(torch.stack(initial), stacked)
    if spans[0] is not None:
        outside = torch.stack([span.mT @ part for span, part in zip(spans, outside, strict=True)])  # pyright: ignore[reportOptionalMemberAccess]
    return linalg.gram_error(stacked) + 2 * outside.square().sum((-2, -1))


def _spectral(group: Group) -> Float[Tensor, "layers parts"]:
    u, s, v = _stack(layer.u for layer in group), _stack(layer.s for layer in group), _stack(layer.v for layer in group)
    images = [layer.semantic.unflatten(0, (layer.parts, -1)).to(u.dtype) @ factor.mT for layer, factor in zip(group, v, strict=True)]
    overlap = ((u * torch.stack(images)).sum(-2) * s).sum(-1)
    energy = (s[..., None, :] @ ((u.mT @ u) * (v @ v.mT)) @ s[..., None])[..., 0, 0]
    initial = _stack(layer.initial.s for layer in group).square().sum(-1)
    return (2 * overlap + energy - initial).abs() / _stack(layer.energy for layer in group).clamp(min=TINY)


def _singular_values(group: Group) -> Float[Tensor, "layers parts"]:
    initial = _stack(layer.initial.s for layer in group)
    least = 1e-12 * _stack(layer.energy for layer in group)  # the free directions of a matrix with dead rows may have no energy at all
    return (_stack(layer.s for layer in group) - initial).square().sum(-1) / torch.maximum(initial.square().sum(-1), least).clamp(min=TINY)


def _stack(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors))
