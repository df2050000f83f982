"""A disk cache of tensors that can be computed again.

A file that is damaged or cannot be written costs time and nothing else.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.errors import InputError, reason

log = logging.getLogger(__name__)

CHECKSUM = "checksum"
"""The tensor of a file that holds the checksum of the others."""


def load_or_compute(
    folder: str, key: str, names: Sequence[str], compute: Callable[[], Sequence[Tensor]]
) -> Sequence[Tensor]:
    """The cached result of `compute`; computed and stored if absent.

    Args:
        folder: of the cache, one for each kind of result.
        key: the name of the file, a digest of everything that the result depends on.
        names: names of the tensors in the file.
        compute: returns the tensors.

    Returns:
        The tensors: on the CPU if they were stored, else as `compute` returned them.
    """
    try:
        path = cache_folder() / folder / f"{key}.safetensors"
    except InputError as error:
        _warn(folder, error.message)
        return compute()
    if os.path.isfile(path):  # False where a folder above it may not be entered
        try:
            stored = load(path.read_bytes())  # no memory map: another job may write the same file
            found = [stored[name] for name in names]
            if not torch.equal(stored[CHECKSUM], checksum(found)):
                raise ValueError("its checksum differs")
            return found
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            log.warning("%s cannot be read (%s); it is computed again.", path, error)
    computed = compute()
    parts = [part.cpu() for part in computed]
    try:
        with atomic(path) as partial:
            save_file(dict(zip(names, parts, strict=True)) | {CHECKSUM: checksum(parts)}, partial)
    except OSError as error:
        _warn(folder, f"{path.parent} cannot be written ({error.strerror or reason(error)})")
    except SafetensorError as error:  # as it names a full disk
        _warn(folder, f"{path.parent} cannot be written ({reason(error)})")
    return computed


@functools.cache
def _warn(folder: str, why: str) -> None:
    """Logs once, not once a result, that nothing is stored."""
    log.warning(
        "%s are not kept, so the next run computes them again: %s; set FMSD_CACHE to a folder "
        "that can be written.",
        folder.capitalize(),
        why,
    )


def checksum(tensors: Sequence[Tensor]) -> Tensor:
    """The SHA-256 of the bytes of some tensors on the CPU."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy if it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
