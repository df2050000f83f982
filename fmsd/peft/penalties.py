"""What keeps the artifact subspaces apart from the semantic one and the weight's energy where it was (FMSD, arXiv 2601.01041).

The paper names two constraints, orthogonality and spectral consistency, without public equations; these are our readings, in exact
forms that never build a matrix of the size of the weight's square.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd import linalg
from fmsd.peft.inject import Penalties, Penalty
from fmsd.peft.subspace import SubspaceLinear
from fmsd.types import InputError


def orthogonality(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of ||[U_sem U]^T [U_sem U] - I||_F^2 plus the same for V.

    The semantic block is constant, so this is ||U^T U - I||^2 + 2 ||U_sem^T U||^2. Where U_sem and the initial factors U0 together
    span the whole space (a matrix's shorter side), ||U_sem^T U|| is the length of what U has outside the span of U0.
    """
    return _mean(_orthogonality(layer) for layer in _layers(model))


def spectral(model: nn.Module) -> Float[Tensor, ""]:
    """Mean over matrices of | ||W||_F^2 - ||W0||_F^2 | / ||W0||_F^2, with W the effective and W0 the pretrained matrix."""
    return _mean(_spectral(layer) for layer in _layers(model))


PENALTIES: dict[str, Penalty] = {"orthogonality": orthogonality, "spectral": spectral}


def named(weights: Mapping[str, float]) -> Penalties:
    """The penalties with a weight above zero.

    Raises:
        InputError: an unknown name or a negative weight.
    """
    for name, weight in weights.items():
        if name not in PENALTIES or weight < 0:
            raise InputError(f"method.penalties.{name}={weight} is no penalty with a weight of at least 0; there are {', '.join(PENALTIES)}.")
    return {name: (float(weight), PENALTIES[name]) for name, weight in weights.items() if weight > 0}


def _layers(model: nn.Module) -> Iterator[SubspaceLinear]:
    return (module for module in model.modules() if isinstance(module, SubspaceLinear))


def _mean(values: Iterator[Float[Tensor, " parts"]]) -> Float[Tensor, ""]:
    return torch.cat(list(values)).mean()


def _orthogonality(layer: SubspaceLinear) -> Float[Tensor, " parts"]:
    sides = ((layer.u, layer.u0, layer.u_semantic), (layer.v.mT, layer.v0.mT, layer.v_semantic))
    total = torch.zeros_like(layer.s[:, 0])
    for factor, initial, semantic in sides:
        outside = linalg.orthonormal_complement(initial, factor) if semantic is None else semantic.mT @ factor
        total = total + linalg.gram_error(factor) + 2 * outside.square().sum((-2, -1))
    return total


def _spectral(layer: SubspaceLinear) -> Float[Tensor, " parts"]:
    semantic = layer.semantic.view(layer.parts, -1, layer.in_features)
    overlap = torch.einsum("pr,por,por->p", layer.s, layer.u, semantic @ layer.v.mT)
    energy = torch.einsum("pr,prq,pq->p", layer.s, (layer.u.mT @ layer.u) * (layer.v @ layer.v.mT), layer.s)
    initial = layer.s0.square().sum(1)
    pretrained = semantic.square().sum((1, 2)) + initial
    return (2 * overlap + energy - initial).abs() / pretrained
