"""Collective operations of a training in several processes, one per device.

Gradients of the trainable parameters are small, and a wrapper needs them summed at two points of a
step only: before the parameters are perturbed, and at the end. So nothing here wraps the model
(`DistributedDataParallel` would synchronise in every backward pass): the learner sums what it needs
by `all_reduce_sum`, and every process then computes the same step.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed

from fmsd.engine.lightning_compat import setup_processes
from fmsd.errors import InputError


class UnwrappedDDPStrategy(DDPStrategy):
    """Lightning's strategy of one process per device, without `DistributedDataParallel`."""

    def configure_ddp(self) -> None:
        """Leaves the model unwrapped."""


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Sums tensors of one dtype over all processes, in place, by one collective operation."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    sums = flat.split([tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, sums, strict=True):
        tensor.copy_(total.view_as(tensor))


def all_gather_lists(items: list[Any]) -> list[Any]:
    """The items of all processes, concatenated in the order of their ranks."""
    if not is_distributed():
        return items
    lists: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(lists, items)
    return [item for gathered in lists for item in gathered]


def broadcast_object(value: Any) -> Any:
    """The value of rank 0, in every process."""
    if not is_distributed():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Broadcasts tensors from rank 0, in place."""
    for tensor in tensors:
        distributed.broadcast(tensor, 0)


def init_process_group(trainer: Trainer) -> bool:
    """Initialises the process group of a trainer with several processes.

    Returns:
        Whether this is rank 0, which alone writes and tests.
    """
    if trainer.world_size > 1:
        setup_processes(trainer)
    return trainer.is_global_zero


def destroy_process_group() -> None:
    """Destroys the process group, if there is one."""
    if is_distributed():
        distributed.destroy_process_group()


@contextlib.contextmanager
def rank_zero_first() -> Iterator[None]:
    """Runs a block on rank 0, then on the other ranks."""
    if is_distributed() and distributed.get_rank() > 0:
        distributed.barrier()
    try:
        yield
    finally:
        if is_distributed() and distributed.get_rank() == 0:
            distributed.barrier()


def check_same_folder(folder: Path) -> None:
    """Refuses processes of one run with different folders.

    Raises:
        InputError: the processes have different folders.
    """
    if set(all_gather_lists([folder])) != {folder}:
        raise InputError(
            f"The processes of this run have different folders, {folder} among them",
            "give all the same with hydra.run.dir=PATH",
        )
