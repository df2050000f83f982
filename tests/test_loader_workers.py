"""Worker processes of loaders live as long as the process that made them, however they start."""

import multiprocessing
import os
import subprocess
import sys
from functools import partial

import pytest
from torch.utils.data import DataLoader

from fmsd.data.processes import start_worker
from fmsd.signals import die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are bound on Linux")


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_serves_its_loader(method: str) -> None:
    loader = DataLoader(
        range(3),  # pyright: ignore[reportArgumentType]  it has a length and indices
        batch_size=None,
        num_workers=1,
        worker_init_fn=partial(start_worker, os.getpid()),
        multiprocessing_context=method,
    )
    assert list(loader) == [0, 1, 2]


def test_a_worker_ends_whose_parent_has_ended_before() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    worker = multiprocessing.get_context("fork").Process(target=die_with_parent, args=(ended.pid,))
    worker.start()
    worker.join()
    assert worker.exitcode == 1
