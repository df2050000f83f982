"""Whether a face lies outside of what a run has seen: distances of features from validation data.

The distance to the k-th nearest neighbour among unit vectors, after Y. Sun, Y. Ming, X. Zhu and
Y. Li, Out-of-Distribution Detection with Deep Nearest Neighbors, 2022, arXiv:2204.06507. Theirs are
features of training data; ours are of the validation data, which the detector was not fitted to,
and a frame is not compared with frames of its own video, which would always be near.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from fmsd.runs.validation_features import unit

NEIGHBOURS = 10
"""The k of the k-th nearest neighbour."""

LIMIT = 0.99
"""The share of validation frames whose distance is not called unusual."""


@dataclass(frozen=True)
class FeatureBank:
    """Features of validation frames as unit vectors, and the distance from which one is unusual.

    Args:
        vectors: unit vectors.
        neighbours: the k of the k-th nearest neighbour.
        limit: the distance that a share `LIMIT` of the validation frames does not exceed.
    """

    vectors: Float[ndarray, "frames channels"]
    neighbours: int
    limit: float

    def distance(self, features: Float[ndarray, "batch channels"]) -> Float[ndarray, " batch"]:
        """Euclidean distances, from 0 to 2, of features to their k-th nearest neighbour."""
        return nearest_distances(unit(features) @ self.vectors.T, self.neighbours)


def fit_bank(
    features: Float[ndarray, "frames channels"], video: Int[ndarray, " frames"]
) -> FeatureBank | None:
    """The bank of some frames; None where there are fewer than two videos.

    Args:
        video: number of each frame's video.
    """
    if len(np.unique(video)) < 2:
        return None
    vectors = unit(features)
    likeness = vectors @ vectors.T
    likeness[video[:, None] == video[None, :]] = -np.inf  # a frame's own video says nothing
    others = int(np.isfinite(likeness).sum(1).min())
    neighbours = max(1, min(NEIGHBOURS, others))
    distances = nearest_distances(likeness, neighbours)
    return FeatureBank(vectors, neighbours, float(np.quantile(distances, LIMIT)))


def nearest_distances(
    likeness: Float[ndarray, "batch frames"], neighbours: int
) -> Float[ndarray, " batch"]:
    """The distance to the k-th nearest of some unit vectors, by their inner products."""
    kth = -np.partition(-likeness, neighbours - 1, axis=1)[:, neighbours - 1]
    return np.sqrt(np.clip(2 - 2 * kth, 0, None))
