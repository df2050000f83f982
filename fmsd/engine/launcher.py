"""Starts a training in several processes of this machine, one per device, and watches them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from torch import distributed

from fmsd.errors import InputError
from fmsd.package_files import CONF, PACKAGE
from fmsd.signals import LAUNCHER, SIGNALS, Interrupted, interruption, signals_handled

LOCAL_RANK = "LOCAL_RANK"
"""The environment variable that marks a process as one of several."""


def device_indices(devices: object) -> list[int]:
    """The devices that a trainer's setting lists one by one (`[2, 3]`, `"2,3"`).

    None where the setting is a count, or leaves the choice open.
    """
    listed = "," in devices if isinstance(devices, str) else isinstance(devices, Sequence)
    return [int(index) for index in str(devices).strip("[], ").split(",")] if listed else []


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher has started one process per device: torchrun, srun, or `launch`."""
    # a shell that was given several tasks has not started them
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    several_tasks = int(environment.get("SLURM_NTASKS", "1")) > 1
    return LOCAL_RANK in environment or (several_tasks and not interactive)


def launch(arguments: Sequence[str], count: int) -> int:
    """Runs `python ARGUMENTS` in `count` processes that find each other.

    Rank 0 writes to the terminal; the errors of another rank are printed if it fails first. Then
    the others are stopped. A signal to this process is passed on to all of them, and they are given
    the time to save; they end with this process, however that ends.

    Returns:
        The exit code of the first process that failed, or 0.

    Raises:
        InputError: the system killed one of them.
        Interrupted: a signal came.
    """
    # This process holds the port that they meet at, as torchrun does: one that was free a moment
    # ago may be another job's when they get to it.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    environment = shared_environment(store.port, count)
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_handled())
        stack.callback(stop_processes, processes)
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        for rank in range(count):
            out, err = (None, None) if rank == 0 else (subprocess.DEVNULL, errors[rank])
            own = environment | {LOCAL_RANK: str(rank), "RANK": str(rank)}
            processes.append(
                subprocess.Popen([sys.executable, *arguments], env=own, stdout=out, stderr=err)
            )
        try:
            failed = wait_for_failure(processes)
        except KeyboardInterrupt as error:
            for process in processes:
                process.send_signal(interruption(error).number)
            wait_for_exit(processes, 60)
            raise
        if failed is None:
            return 0
        check_exit(processes[failed].returncode)
        wait_for_exit(processes[:1], 3)  # rank 0 may be about to print the same error
        if processes[0].returncode:
            return processes[0].returncode
        errors[failed].seek(0)
        sys.stderr.write(errors[failed].read().decode(errors="replace"))
        return processes[failed].returncode


def shared_environment(port: int, count: int) -> dict[str, str]:
    """The environment of all processes, without their ranks."""
    # SLURM_NTASKS=1 of a batch job would make Lightning expect one process; HYDRA_FULL_ERROR is
    # for the Hydra of this process
    private = ("SLURM_NTASKS", "HYDRA_FULL_ERROR")
    inherited = {key: value for key, value in os.environ.items() if key not in private}
    if CONF.parent == PACKAGE.parent:  # a checkout, which need not be installed
        paths = (str(PACKAGE.parent), inherited.get("PYTHONPATH"))
        inherited["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return inherited | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        LAUNCHER: str(os.getpid()),
    }


def check_exit(code: int) -> None:
    """Refuses the exit code of a process that a signal ended, which prints nothing itself.

    Raises:
        InputError: the system killed it.
        Interrupted: another signal ended it.
    """
    if code == -signal.SIGKILL:
        raise InputError(
            "A process of the training was killed by the system, mostly because memory ran out",
            "give more memory, a smaller data.batch_size or fewer data.workers",
        )
    if -code in SIGNALS or code - 128 in SIGNALS:
        raise Interrupted(max(-code, code - 128))


def wait_for_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits for the first process that fails and returns its rank; None once all have succeeded."""
    while True:
        codes = [process.poll() for process in processes]
        if failed := [rank for rank, code in enumerate(codes) if code]:
            return failed[0]
        if None not in codes:
            return None
        time.sleep(0.1)


def wait_for_exit(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Waits for each process to exit, at most so long."""
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminates processes that still run; kills those that have not ended after 10 seconds."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
