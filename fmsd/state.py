"""State dicts on disk, read and written tensor by tensor."""

import json
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.errors import InputError, reason
from fmsd.magic_numbers import Fault, is_safetensors, is_zip, recognise

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of number formats in a safetensors file."""


class StateFile(Mapping[str, Tensor]):
    """A safetensors file as a state dict: tensors are read on access, from the mapped file."""

    def __init__(self, path: Path) -> None:
        self.file = safe_open(path, framework="pt")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> Tensor:
        """Returns a tensor in the mapped file, which must not be written to."""
        try:
            return self.file.get_tensor(name)
        except SafetensorError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def tensor_shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Returns the shape of every tensor, without reading those of a file."""
    if isinstance(state, StateFile):
        return {name: torch.Size(state.file.get_slice(name).get_shape()) for name in state}
    return {name: tensor.shape for name, tensor in state.items()}


FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Names of floating-point formats, including those that this package does not write."""


def number_formats(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the safetensors name of every tensor's number format, without reading a file's."""
    if isinstance(state, StateFile):
        return {name: state.file.get_slice(name).get_dtype() for name in state}
    eight = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
    return {
        name: (CODES | eight).get(tensor.dtype, str(tensor.dtype)) for name, tensor in state.items()
    }


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Reads the tensors of a safetensors or torch file, memory-mapped if the format allows it.

    The format is recognised by content, not by name. If the file contains one state dict beside
    other objects, as a checkpoint does, that is returned; if it contains several, all are, with the
    name of their entry as a prefix. Only tensors are unpickled.

    Raises:
        InputError: the file is missing, damaged or unsafe, or has no state dict.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}", "correct the path")
    try:
        content = StateFile(path) if is_safetensors(path) else _unpickled(path)
    except Exception as error:  # a damaged pickle raises anything
        fault = read_fault(path, error)
        raise InputError(
            f"The weights file {path} cannot be read: it {fault.what}", fault.remedy
        ) from error
    if isinstance(content, StateFile):
        return content
    found = dict(_state_dicts(content))
    if not found:
        raise InputError(
            f"The weights file {path} holds no state dict", "save model.state_dict() instead"
        )
    if len(found) == 1:
        return next(iter(found.values()))
    return {
        f"{entry}{name}": tensor for entry, state in found.items() for name, tensor in state.items()
    }


def read_fault(path: Path, error: Exception) -> Fault:
    """Returns why a file of tensors, or their description, could not be read.

    Args:
        error: the exception of reading it; its text is quoted only if it comes from safetensors or
            the system, not if it is torch's advice.
    """
    if isinstance(error, OSError):
        return Fault(f"cannot be opened ({reason(error)})", "see to its permissions and its disk")
    if fault := recognise(path):
        return fault
    try:
        others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not in the present format of torch, or damaged
        others = []
    if others:
        names = ", ".join(ascii(name)[1:-1] for name in others[:3]) + (
            f" and {len(others) - 3} more" if len(others) > 3 else ""
        )
        return Fault(
            f"holds other objects than tensors ({names}), which are not loaded, as they could run "
            "code",
            UNPICKLE,
        )
    if isinstance(error, UnpicklingError):
        return Fault(
            "is no file of torch, is damaged, or holds other objects than tensors, which are not "
            "loaded",
            f"download it again, or {UNPICKLE}",
        )
    detail = f" ({reason(error)})" if isinstance(error, SafetensorError) else ""
    return Fault(
        f"is damaged, or is neither safetensors nor a file of torch{detail}",
        "download it again, or give another file",
    )


UNPICKLE = "save its state_dict as safetensors in the repository it came from"
"""The remedy for a pickle of other objects than tensors."""


def _state_dicts(
    content: object, entry: str = "", levels: int = 4
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the state dicts in nested mappings, with the keys that lead to them, each with a dot.

    Args:
        levels: depth of the search, which ends in mappings that contain themselves.
    """
    if (
        not levels
        or not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) for key in content)
    ):
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        yield entry, dict(content)
        return
    for key, value in content.items():
        yield from _state_dicts(value, f"{entry}{key}.", levels - 1)


def _unpickled(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which is refused
        # The format before torch 1.6 cannot be mapped; torch trusts the ending .safetensors.
        if path.suffix != ".safetensors" and is_zip(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)


def check_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Checks that tensors have values, and floating-point ones where the network does.

    Integers there are quantised weights, which are meaningless without their scales.

    Raises:
        InputError: a tensor does not; it is named.
    """
    formats = number_formats(state)
    for name in own.keys() & formats.keys():
        if own[name].is_floating_point() and formats[name] not in FLOATING:
            raise InputError(
                f"The weights {source} are quantised ({name} is of type {formats[name]} instead "
                "of a floating-point type)",
                "give the checkpoint that they were quantised from",
            )
        if not isinstance(state, StateFile) and (
            state[name].is_meta or state[name].layout != torch.strided
        ):
            raise InputError(
                f"The weights {source} hold no dense values of {name}",
                "save them from a model whose weights were loaded",
            )


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Checks that weights hold neither NaN nor infinity, which would make every score one.

    A sum shows it in one pass without a copy; only where that is not finite are all values looked
    at, as finite ones may add up to infinity.

    Args:
        tensors: names and tensors, which are read one at a time.
        source: the file, for the message.

    Raises:
        InputError: a tensor does; it is named.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        values = tensor.float() if tensor.itemsize == 1 else tensor  # torch adds up no such floats
        if values.sum(dtype=torch.float32).isfinite():
            continue
        odd = int((~values.isfinite()).sum())
        if odd:
            raise InputError(
                f"The weights {source} hold NaN or infinity in {name} ({odd:,} of "
                f"{values.numel():,} values)",
                "give weights of a training that did not diverge, or copy the file again",
            )


def write_state(
    path: Path,
    layout: Mapping[str, tuple[torch.Size, torch.dtype]],
    tensors: Iterable[tuple[str, Tensor]],
) -> None:
    """Writes a safetensors file atomically, from tensors in any order, one at a time.

    Args:
        layout: shape and number format of every tensor, which is converted to it.
        tensors: names and tensors.

    Raises:
        ValueError: a tensor is not in the layout, has another shape, or is given twice or never.
    """
    header, places, end = {}, {}, 0
    # Sorted by falling element size, so that every element is aligned.
    for name, (shape, kind) in sorted(layout.items(), key=lambda entry: -entry[1][1].itemsize):
        start, end = end, end + shape.numel() * kind.itemsize
        header[name] = {"dtype": CODES[kind], "shape": list(shape), "data_offsets": [start, end]}
        places[name] = start
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    with atomic(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            if name not in places or tensor.shape != layout[name][0]:
                raise ValueError(f"{name} {tuple(tensor.shape)} is not awaited (any more)")
            file.seek(8 + len(text) + places.pop(name))
            file.write(
                tensor.detach()
                .to("cpu", layout[name][1])
                .contiguous()
                .flatten()
                .view(torch.uint8)
                .numpy()
                .data
            )
        if places:
            raise ValueError(f"{next(iter(places))} never came")
