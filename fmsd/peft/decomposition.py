"""Singular decompositions that are computed once per machine: kept on disk under the hash of the weight they belong to."""

import functools
import hashlib
import logging
import os

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.errors import InputError, reason
from fmsd.linalg import SMALL, Factors, Split, directions

log = logging.getLogger(__name__)

VERSION = 1
"""Part of every key; to be raised with every change of `fmsd.linalg.directions` that changes its result."""


def decompose(weight: Float[Tensor, "out in"], rank: int, split: Split = "tail") -> Factors:
    """`fmsd.linalg.directions`, from the disk where an earlier run has left it, in the folder `directions` of the cache.

    Random directions and small matrices are not kept; nothing is where the cache cannot be written.
    """
    if split == "random" or min(weight.shape) <= SMALL:
        return directions(weight, rank, split)
    try:
        path = cache_folder() / "directions" / f"{key(weight, rank, split)}.safetensors"
    except InputError as error:
        _warn(error.message)
        return directions(weight, rank, split)
    if os.path.isfile(path):  # False where a folder above it may not be entered
        try:
            kept = load(path.read_bytes())  # no memory map: another job may write the same file
            return Factors(*(kept[name].to(weight.device) for name in Factors._fields))
        except (SafetensorError, KeyError, OSError) as error:
            log.warning("%s cannot be read (%s); it is computed again.", path, error)
    found = directions(weight, rank, split)
    try:
        with atomic(path) as partial:
            save_file({name: part.cpu() for name, part in found._asdict().items()}, partial)
    except OSError as error:
        _warn(f"{path.parent} cannot be written ({error.strerror or reason(error)})")
    except SafetensorError as error:  # as it names a full disk
        _warn(f"{path.parent} cannot be written ({reason(error)})")
    return found


@functools.cache
def _warn(why: str) -> None:
    """Says once, not once a layer, that nothing is kept."""
    log.warning("Singular directions are not kept, so the next run computes them again: %s; set FMSD_CACHE to a folder that can be written.", why)


def key(weight: Float[Tensor, "out in"], rank: int, split: Split) -> str:
    """SHA-256 of the weight's bytes and of what is asked for."""
    digest = hashlib.sha256(f"{VERSION} {tuple(weight.shape)} {weight.dtype} {rank} {split}".encode())
    digest.update(raw(weight))
    return digest.hexdigest()


def raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy where it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
