"""State dicts on disk, tensor by tensor: read when they are asked for, written as they come."""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.errors import InputError, reason

CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"},
}
"""The names of number formats in a safetensors file."""


class StateFile(Mapping[str, Tensor]):
    """A safetensors file as a state dict: its header is read now, a tensor when it is asked for, from the mapped file."""

    def __init__(self, path: Path) -> None:
        self.file = safe_open(path, framework="pt")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> Tensor:
        """A tensor in the mapped file; it must not be written to."""
        try:
            return self.file.get_tensor(name)
        except SafetensorError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of every tensor; those in a file are not read for it."""
    if isinstance(state, StateFile):
        return {name: torch.Size(state.file.get_slice(name).get_shape()) for name in state}
    return {name: tensor.shape for name, tensor in state.items()}


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors or pth file, mapped into memory where the format allows it; a nested `state_dict` or `model` entry is unwrapped.

    Nothing is unpickled but tensors.

    Raises:
        InputError: a missing, damaged or unsafe file.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}", "correct the path")
    try:
        state = StateFile(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # a damaged pickle raises anything
        raise InputError(f"The weights file {path} cannot be read ({reason(error)})", "fetch it again, or save its tensors as safetensors") from error
    if isinstance(state, StateFile):
        return state
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"The weights file {path} holds no state dict", "save model.state_dict() instead")
    return dict(state)


def _unpickled(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6 cannot be mapped


def write_state(path: Path, layout: Mapping[str, tuple[torch.Size, torch.dtype]], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Writes a safetensors file in one step, from tensors that come one by one in any order.

    Args:
        layout: shape and number format of every tensor; what comes is converted to it.

    Raises:
        ValueError: a tensor that is not in the layout or of another shape, comes twice, or never.
    """
    header, places, end = {}, {}, 0
    for name, (shape, kind) in sorted(layout.items(), key=lambda entry: -entry[1][1].itemsize):  # so that every number is aligned
        start, end = end, end + shape.numel() * kind.itemsize
        header[name] = {"dtype": CODES[kind], "shape": list(shape), "data_offsets": [start, end]}
        places[name] = start
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    with atomic(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            if name not in places or tensor.shape != layout[name][0]:
                raise ValueError(f"{name} {tuple(tensor.shape)} is not awaited (any more)")
            file.seek(8 + len(text) + places.pop(name))
            file.write(tensor.detach().to("cpu", layout[name][1]).contiguous().flatten().view(torch.uint8).numpy().data)
        if places:
            raise ValueError(f"{next(iter(places))} never came")
