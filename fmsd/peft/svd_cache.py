"""A disk cache of singular directions and values, keyed by the hash of the weight."""

import hashlib
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from fmsd import linalg, tensor_cache
from fmsd.linalg import SMALL, DirectionSplit, Factors, singular_directions
from fmsd.tensor_cache import tensor_bytes

FOLDER = "directions"
"""The folder of the cache."""

CACHE_VERSION = 3
"""Part of every key; to be raised when a change of `fmsd.linalg` changes the cached values."""


def cached_directions(
    weight: Float[Tensor, "out in"], rank: int, split: DirectionSplit = "tail"
) -> Factors:
    """The `fmsd.linalg.singular_directions`, cached on disk unless they are random."""
    if split == "random":
        return singular_directions(weight, rank, split)
    return Factors(
        *load_or_compute(
            weight,
            f"{rank} {split}",
            Factors._fields,
            lambda: singular_directions(weight, rank, split),
        )
    )


def cached_decomposition(weight: Float[Tensor, "out in"]) -> Factors:
    """The `fmsd.linalg.decompose`, cached on disk."""
    return Factors(
        *load_or_compute(weight, "all", Factors._fields, lambda: linalg.decompose(weight))
    )


def cached_median_singular_value(weight: Float[Tensor, "out in"]) -> Float[Tensor, ""]:
    """The `fmsd.linalg.median_singular_value`, cached on disk."""
    return load_or_compute(
        weight, "median", ("median",), lambda: (linalg.median_singular_value(weight),)
    )[0]


def load_or_compute(
    weight: Float[Tensor, "out in"],
    what: str,
    names: Sequence[str],
    compute: Callable[[], Sequence[Tensor]],
) -> Sequence[Tensor]:
    """The cached result of `compute` about a weight, on its device.

    Results lie in the folder `directions` of the cache. Those of small matrices are not stored, nor
    if the cache cannot be written.

    Args:
        what: the kind of result, a part of the key.
        names: names of the tensors in the file.
        compute: returns the tensors.
    """
    if min(weight.shape) <= SMALL:
        return compute()
    stored = tensor_cache.load_or_compute(FOLDER, cache_key(weight, what), names, compute)
    return [part.to(weight.device) for part in stored]


def cache_key(weight: Float[Tensor, "out in"], what: str) -> str:
    """The SHA-256 of the weight's bytes and the kind of result."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {tuple(weight.shape)} {weight.dtype} {what}".encode())
    digest.update(tensor_bytes(weight))
    return digest.hexdigest()
