"""Terms of pairs of frames: how their features are spread over the unit sphere.

Alignment and uniformity: Wang and Isola, ICML 2020, arXiv 2005.10242. For deepfake detection, with
pairs of the same class: GenD (Yermakov et al., WACV 2026, arXiv 2508.06248).
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fmsd.linalg import unit_vectors


def uniformity(
    feature: Float[Tensor, "frames channels"], counted: Bool[Tensor, " frames"]
) -> Float[Tensor, ""]:
    """Computes log E exp(-2 ||z_i - z_j||^2) over the pairs of different frames.

    z is the feature divided by its length. 0 without a pair.

    Args:
        counted: frames that belong to pairs; others have no influence.
    """
    pairs = _distinct(counted)
    affinity = torch.exp(-2 * _squared_distances(feature))
    mean = _mean(affinity, pairs)
    return torch.where(pairs.any(), mean, 1.0).log()


def alignment(
    feature: Float[Tensor, "frames channels"],
    label: Int[Tensor, " frames"],
    counted: Bool[Tensor, " frames"],
) -> Float[Tensor, ""]:
    """Computes E ||z_i - z_j||^2 over the pairs of different frames of the same class.

    z is the feature divided by its length. 0 without a pair.

    Args:
        counted: frames that belong to pairs; others have no influence.
    """
    pairs = _distinct(counted) & (label[:, None] == label[None, :])
    return _mean(_squared_distances(feature), pairs)


def _squared_distances(
    feature: Float[Tensor, "frames channels"],
) -> Float[Tensor, "frames frames"]:
    """2 - 2 <z_i, z_j>: without a root, whose gradient is infinite for equal features."""
    unit = unit_vectors(feature)
    return (2 - 2 * unit @ unit.T).clamp(min=0)


def _distinct(counted: Bool[Tensor, " frames"]) -> Bool[Tensor, "frames frames"]:
    """Which pairs consist of two different frames that count."""
    same = torch.eye(len(counted), dtype=torch.bool, device=counted.device)
    return counted[:, None] & counted[None, :] & ~same


def _mean(
    values: Shaped[Tensor, "frames frames"], pairs: Bool[Tensor, "frames frames"]
) -> Float[Tensor, ""]:
    """The mean over some pairs; 0 without one."""
    return torch.where(pairs, values, 0.0).sum() / pairs.sum().clamp(min=1)
