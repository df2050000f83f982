"""Training in several processes, one per device, on one machine or many.

Gradients of what learns are small, and a wrapper needs them joined at two points of a step only:
before the parameters are perturbed and at the end. So nothing here wraps the model
(`DistributedDataParallel` would synchronise in every backward pass); the learner sums what it needs
by `all_reduce_sum`, and every process then computes the same step.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed

LOCAL_RANK = "LOCAL_RANK"
"""The environment variable that tells a process that it is one of several."""


class UnwrappedDDPStrategy(DDPStrategy):
    """Lightning's strategy of one process per device, without `DistributedDataParallel`."""

    def configure_ddp(self) -> None:
        """Leaves the model as it is."""


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Sums tensors of one type over all processes, in place, by one collective operation."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(
        tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True
    ):
        tensor.copy_(part.view_as(tensor))


def all_gather_lists(part: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other."""
    if not is_distributed():
        return part
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return [entry for own in parts for entry in own]


def broadcast_object(found: Any) -> Any:
    """What the first process found."""
    if not is_distributed():
        return found
    box = [found]
    distributed.broadcast_object_list(box)
    return box[0]


def init_process_group(trainer: Trainer) -> bool:
    """Joins the processes of a trainer, if it has several; whether this is the first of them, which alone writes and tests."""
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()
    return trainer.is_global_zero


def destroy_process_group() -> None:
    """Lets the processes go their own ways."""
    if is_distributed():
        distributed.destroy_process_group()


@contextlib.contextmanager
def rank_zero_first(leading: bool) -> Iterator[None]:
    """The first process goes ahead, the others follow when it is done."""
    if is_distributed() and not leading:
        distributed.barrier()
    try:
        yield
    finally:
        if is_distributed() and leading:
            distributed.barrier()


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Gives every process the first one's numbers, in place."""
    for tensor in tensors:
        distributed.broadcast(tensor, 0)


def device_indices(devices: object) -> list[int]:
    """The devices that a trainer's setting names one by one (`[2, 3]`, `"2,3"`); none where it says how many, or leaves it open."""
    one_by_one = "," in devices if isinstance(devices, str) else isinstance(devices, Sequence)
    return [int(number) for number in str(devices).strip("[], ").split(",")] if one_by_one else []


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether something has started one process per device already: torchrun, srun with several tasks, or `launch`."""
    interactive = environment.get("SLURM_JOB_NAME") in (
        "bash",
        "interactive",
    )  # a shell that was given several tasks
    return LOCAL_RANK in environment or (
        int(environment.get("SLURM_NTASKS", "1")) > 1 and not interactive
    )


def launch(arguments: Sequence[str], count: int) -> int:
    """Runs `python ARGUMENTS` in `count` processes that find each other; the exit code of the first that failed, or 0.

    The first process speaks; another is heard when it is the first to fail. Then the rest is
    stopped, as it is when this process is told to end. Ctrl-C reaches them all, and they are given
    the time to save.
    """
    # This process holds the port that they meet at, as torchrun does: one that was free a moment
    # ago may be another job's when they get to it.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    # SLURM_NTASKS=1 of a batch job would make Lightning expect one process; the other is for this
    # process's Hydra
    shared = {
        key: value
        for key, value in os.environ.items()
        if key not in ("SLURM_NTASKS", "HYDRA_FULL_ERROR")
    }
    shared |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
    }
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.callback(
                signal.signal,
                signal.SIGTERM,
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)),
            )
        stack.callback(stop_processes, processes)
        heard = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        for rank in range(count):
            out, err = (None, None) if rank == 0 else (subprocess.DEVNULL, heard[rank])
            own = shared | {LOCAL_RANK: str(rank), "RANK": str(rank)}
            processes.append(
                subprocess.Popen([sys.executable, *arguments], env=own, stdout=out, stderr=err)
            )
        try:
            while not (
                failed := [rank for rank, process in enumerate(processes) if process.poll()]
            ) and None in [p.poll() for p in processes]:
                time.sleep(0.1)
        except KeyboardInterrupt:
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
            raise
        if not failed:
            return 0
        if 0 not in failed:  # it may be about to say the same
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[0].wait(timeout=3)
            if processes[0].returncode:
                return processes[0].returncode
        heard[failed[0]].seek(0)
        sys.stderr.write(heard[failed[0]].read().decode(errors="replace"))
        return processes[failed[0]].returncode


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends what still runs, by force if need be."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
