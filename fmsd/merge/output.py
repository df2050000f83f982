"""The file of merged weights, written tensor by tensor."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fmsd.console import progress
from fmsd.errors import InputError, reason
from fmsd.merge.task_vectors import Merger, Specialists, StateDict, merge_tensors
from fmsd.state import write_state


def write_merged(
    path: Path, specialists: Specialists, merger: Merger, network: StateDict
) -> dict[str, Mapping[str, Any]]:
    """Writes the merged tensors and returns the merger's record of each.

    Args:
        network: shapes and number formats of the tensors; may be on the meta device.

    Raises:
        InputError: the file cannot be written, or as in `merge_tensors`.
    """
    records: dict[str, Mapping[str, Any]] = {}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        with progress("Merging") as tick:
            watched = dataclasses.replace(specialists, on_read=tick)
            for name, tensor, record in merge_tensors(watched, merger):
                records[name] = record
                yield name, tensor

    layout = {name: (network[name].shape, network[name].dtype) for name in specialists.parts}
    try:
        write_state(path, layout, tensors())
    except OSError as error:
        raise InputError(
            f"The merged weights cannot be written to {path.parent} ({reason(error)})",
            "give another folder as out=PATH",
        ) from error
    return records
