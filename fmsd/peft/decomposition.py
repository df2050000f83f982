"""Singular decompositions that are computed once per machine: kept on disk under the hash of the weight they belong to."""

import hashlib
import logging
import os
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.linalg import SMALL, Factors, Split, directions

log = logging.getLogger(__name__)

VERSION = 1
"""Part of every key; to be raised with every change of `fmsd.linalg.directions` that changes its result."""


def decompose(weight: Float[Tensor, "out in"], rank: int, split: Split = "tail") -> Factors:
    """`fmsd.linalg.directions`, from the disk where an earlier run has left it in `$FMSD_CACHE/directions` (by default below ~/.cache/fmsd).

    Random directions and small matrices are not kept.
    """
    if split == "random" or min(weight.shape) <= SMALL:
        return directions(weight, rank, split)
    path = Path(os.environ.get("FMSD_CACHE") or "~/.cache/fmsd").expanduser() / "directions" / f"{key(weight, rank, split)}.safetensors"
    if path.is_file():
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
        log.warning("Singular directions cannot be kept in %s (%s); set FMSD_CACHE to a folder that can be written.", path.parent, error)
    return found


def key(weight: Float[Tensor, "out in"], rank: int, split: Split) -> str:
    """SHA-256 of the weight's bytes and of what is asked for."""
    digest = hashlib.sha256(f"{VERSION} {tuple(weight.shape)} {weight.dtype} {rank} {split}".encode())
    digest.update(raw(weight))
    return digest.hexdigest()


def raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy where it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
