"""A disk cache of singular directions and values, keyed by the hash of the weight."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from fmsd import linalg
from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.errors import InputError, reason
from fmsd.linalg import SMALL, DirectionSplit, Factors, singular_directions

log = logging.getLogger(__name__)

CHECKSUM = "checksum"
"""The tensor of a file that holds the checksum of the others."""

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
    """The cached result of `compute` about a weight; computed and stored if absent.

    Results lie in the folder `directions` of the cache. Those of small matrices are not stored, nor
    if the cache cannot be written.

    Args:
        what: the kind of result, a part of the key.
        names: names of the tensors in the file.
        compute: returns the tensors.
    """
    if min(weight.shape) <= SMALL:
        return compute()
    try:
        path = cache_folder() / "directions" / f"{cache_key(weight, what)}.safetensors"
    except InputError as error:
        _warn(error.message)
        return compute()
    if os.path.isfile(path):  # False where a folder above it may not be entered
        try:
            stored = load(path.read_bytes())  # no memory map: another job may write the same file
            found = [stored[name] for name in names]
            if not torch.equal(stored[CHECKSUM], checksum(found)):
                raise ValueError("its checksum differs")
            return [part.to(weight.device) for part in found]
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            log.warning("%s cannot be read (%s); it is computed again.", path, error)
    computed = compute()
    parts = [part.cpu() for part in computed]
    try:
        with atomic(path) as partial:
            save_file(dict(zip(names, parts, strict=True)) | {CHECKSUM: checksum(parts)}, partial)
    except OSError as error:
        _warn(f"{path.parent} cannot be written ({error.strerror or reason(error)})")
    except SafetensorError as error:  # as it names a full disk
        _warn(f"{path.parent} cannot be written ({reason(error)})")
    return computed


@functools.cache
def _warn(why: str) -> None:
    """Logs once, not once a layer, that nothing is stored."""
    log.warning(
        "Singular directions are not kept, so the next run computes them again: %s; set "
        "FMSD_CACHE to a folder that can be written.",
        why,
    )


def cache_key(weight: Float[Tensor, "out in"], what: str) -> str:
    """The SHA-256 of the weight's bytes and the kind of result."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {tuple(weight.shape)} {weight.dtype} {what}".encode())
    digest.update(tensor_bytes(weight))
    return digest.hexdigest()


def checksum(tensors: Sequence[Tensor]) -> Tensor:
    """The SHA-256 of the bytes of some tensors on the CPU."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy if it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
