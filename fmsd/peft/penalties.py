"""Penalties on artifact subspaces: orthogonality and spectral consistency (FMSD, arXiv 2601.01041).

The paper names two constraints, orthogonality and spectral consistency, "reducing redundancy across
the artifact subspaces and preserving the overall spectral structure", without public equations;
these are our readings, in exact forms that never build a matrix of the size of the weight's square.
All are squared, since an unsquared norm has the same gradient for a rounding error as for a
violation, and values up to a rounding error are set to zero, since Adam makes a full step of any
gradient. Matrices of one shape are treated in one batch.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fmsd import linalg
from fmsd.errors import InputError
from fmsd.peft.method import Penalties, Penalty
from fmsd.peft.subspace import SubspaceLinear, subspace_layers


def redundancy(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of sum_{i != j} ||U_i^T U_j||_F^2 plus the same for V, on unit columns.

    It acts between different artifact subspaces only: inside one the directions are free, since
    they span it together.
    """
    return _mean(model, _redundancy)


def orthogonality(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ||[U_sem U]^T [U_sem U] - I||_F^2 plus the same for V.

    This is the form of Effort (Yan et al., ICML 2025, arXiv 2411.15633).

    The semantic block is constant, so this is ||U^T U - I||^2 + 2 ||U_sem^T U||^2. Where U_sem and
    the initial factors U0 together span the whole space (a matrix's shorter side), ||U_sem^T U|| is
    the length of the part of U outside the span of U0. There the artifact subspaces can only turn
    within their initial directions.
    """
    return _mean(model, _orthogonality)


def spectral(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ((||W||_F^2 - ||W0||_F^2) / ||W0||_F^2)^2, W0 the pretrained matrix."""
    return _mean(model, _spectral)


def singular_values(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ||s - s0||^2 / ||s0||^2, another reading of spectral consistency."""
    return _mean(model, _singular_values)


PENALTIES: dict[str, Penalty] = {
    "redundancy": redundancy,
    "orthogonality": orthogonality,
    "spectral": spectral,
    "singular_values": singular_values,
}

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"redundancy": 0.1, "orthogonality": 0.0, "spectral": 0.1, "singular_values": 0.0}
)
"""Default weight of each penalty."""


def select_penalties(weights: Mapping[str, float]) -> Penalties:
    """The penalties with a weight above zero.

    Raises:
        InputError: an unknown name or a negative weight.
    """
    for name, weight in weights.items():
        if name not in PENALTIES or weight < 0:
            raise InputError(
                f"method.penalties.{name}={weight} is no penalty with a weight of at least 0",
                f"there are {', '.join(PENALTIES)}",
            )
    return {
        name: (float(weight), PENALTIES[name]) for name, weight in weights.items() if weight > 0
    }


LayerGroup = list[SubspaceLinear]

ROUNDING = 1e-6
"""Cosines and relative changes up to this bound are rounding errors of single precision."""


def _mean(
    model: nn.Module, penalty: Callable[[LayerGroup], Float[Tensor, "layers parts"]]
) -> Float[Tensor, ""]:
    groups: dict[object, LayerGroup] = {}
    for layer in subspace_layers(model):
        shape = (
            layer.parts,
            layer.out_features,
            layer.in_features,
            layer.settings,
            layer.semantic.device,
        )
        groups.setdefault(shape, []).append(layer)
    return torch.cat([penalty(group).flatten() for group in groups.values()]).mean()


def _redundancy(group: LayerGroup) -> Float[Tensor, "layers parts"]:
    subspaces, directions = group[0].settings.subspaces, group[0].settings.directions
    within = torch.ones(directions, directions, dtype=torch.bool, device=group[0].energy.device)
    between = torch.block_diag(*[within] * subspaces).logical_not()
    return _overlap(_stack(layer.u for layer in group), between) + _overlap(
        _stack(layer.v.mT for layer in group), between
    )


def _overlap(
    columns: Float[Tensor, "layers parts size rank"], pairs: Bool[Tensor, "rank rank"]
) -> Float[Tensor, "layers parts"]:
    """The summed squared cosines of the marked pairs of columns."""
    unit = functional.normalize(columns, dim=-2)
    return _squared((unit.mT @ unit) * pairs)


def _orthogonality(group: LayerGroup) -> Float[Tensor, "layers parts"]:
    initial = [layer.initial for layer in group]
    left = _side(
        [layer.u for layer in group],
        [factors.u for factors in initial],
        [layer.u_range for layer in group],
    )
    return left + _side(
        [layer.v.mT for layer in group],
        [factors.vt.mT for factors in initial],
        [layer.v_range for layer in group],
    )


def _side(
    factors: list[Tensor], initial: list[Tensor], spans: list[Tensor | None]
) -> Float[Tensor, "layers parts"]:
    stacked = torch.stack(factors)
    outside = linalg.orthonormal_complement(torch.stack(initial), stacked)
    if spans[0] is not None:
        outside = torch.stack([span.mT @ part for span, part in zip(spans, outside, strict=True)])  # pyright: ignore[reportOptionalMemberAccess]
    gram = stacked.mT @ stacked
    return _squared(
        gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ) + 2 * _squared(outside)


def _spectral(group: LayerGroup) -> Float[Tensor, "layers parts"]:
    left, right = _stack(layer.left for layer in group), _stack(layer.v for layer in group)
    images = torch.stack(
        [layer.semantic_image(own) for layer, own in zip(group, right, strict=True)]
    )
    gain = linalg.energy_gain(images, left, right) - _stack(layer.gain for layer in group)
    return functional.hardshrink(
        gain / _positive(_stack(layer.energy for layer in group)), ROUNDING
    ).square()


def _singular_values(group: LayerGroup) -> Float[Tensor, "layers parts"]:
    initial = _stack(layer.initial.s for layer in group)
    if group[0].settings.hard:  # its singular values are sorted
        initial = initial.sort(descending=True).values
    # The tail of a matrix with dead rows may have no energy at all.
    least = 1e-12 * _stack(layer.energy for layer in group)
    length = _positive(torch.maximum(initial.square().sum(-1), least)).sqrt()
    change = (_stack(layer.s for layer in group) - initial) / length[..., None]
    return functional.hardshrink(change, ROUNDING).square().sum(-1)


def _squared(matrix: Float[Tensor, "layers parts rows columns"]) -> Float[Tensor, "layers parts"]:
    """The squared Frobenius norm of the entries above rounding."""
    return functional.hardshrink(matrix, ROUNDING).square().sum((-2, -1))


def _positive(energy: Tensor) -> Tensor:
    """Replaces zeros by 1, so that the change of a zero matrix is measured in absolute terms."""
    return energy.where(energy > 0, 1.0)


def _stack(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors))
