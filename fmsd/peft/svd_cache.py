"""Singular directions and values that are computed once per machine: kept on disk under the hash of the weight they belong to."""

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
from fmsd.linalg import SMALL, Factors, Split, singular_directions

log = logging.getLogger(__name__)

VERSION = 2
"""Part of every key; to be raised with every change of `fmsd.linalg` that changes what is kept."""


def cached_directions(weight: Float[Tensor, "out in"], rank: int, split: Split = "tail") -> Factors:
    """`fmsd.linalg.singular_directions`, from the disk where an earlier run has left it.

    Random directions are not kept.
    """
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


def cached_median_singular_value(weight: Float[Tensor, "out in"]) -> Float[Tensor, ""]:
    """`fmsd.linalg.median_singular_value`, from the disk where an earlier run has left it."""
    return load_or_compute(
        weight, "median", ("median",), lambda: (linalg.median_singular_value(weight),)
    )[0]


def load_or_compute(
    weight: Float[Tensor, "out in"],
    what: str,
    names: Sequence[str],
    compute: Callable[[], Sequence[Tensor]],
) -> Sequence[Tensor]:
    """What `compute` finds about a weight, from the folder `directions` of the cache, which it is written to where it is new.

    Nothing is kept of small matrices, nor where the cache cannot be written.

    Args:
        what: tells apart what is found about one weight.
        names: of the tensors, in the file.
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
            return [stored[name].to(weight.device) for name in names]
        except (SafetensorError, KeyError, OSError) as error:
            log.warning("%s cannot be read (%s); it is computed again.", path, error)
    found = compute()
    try:
        with atomic(path) as partial:
            save_file({name: part.cpu() for name, part in zip(names, found, strict=True)}, partial)
    except OSError as error:
        _warn(f"{path.parent} cannot be written ({error.strerror or reason(error)})")
    except SafetensorError as error:  # as it names a full disk
        _warn(f"{path.parent} cannot be written ({reason(error)})")
    return found


@functools.cache
def _warn(why: str) -> None:
    """Says once, not once a layer, that nothing is kept."""
    log.warning(
        "Singular directions are not kept, so the next run computes them again: %s; set "
        "FMSD_CACHE to a folder that can be written.",
        why,
    )


def cache_key(weight: Float[Tensor, "out in"], what: str) -> str:
    """SHA-256 of the weight's bytes and of what is asked for."""
    digest = hashlib.sha256(f"{VERSION} {tuple(weight.shape)} {weight.dtype} {what}".encode())
    digest.update(tensor_bytes(weight))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy where it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
