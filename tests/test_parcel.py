"""However a batch travels, it arrives as torch would have sent it, and stays as it is while anyone
looks at it.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fmsd.data.loading.parcel import KEPT, collate
from fmsd.types import Frames

linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory files are Linux's")


class Numbered(Dataset[Frames]):
    """Frames of noise that depends on their row."""

    def __init__(self, length: int, size: int = 8) -> None:
        self.length, self.size = length, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Frames:
        image = torch.from_numpy(
            np.random.default_rng(row).integers(0, 256, (3, self.size, self.size), np.uint8)
        )
        return Frames(
            image,
            torch.tensor(row % 2),
            torch.tensor(-1 if row == 3 else row % 3),
            torch.tensor(row),
        )


def loader(length: int, workers: int = 2, **options: Any) -> DataLoader[Frames]:
    return DataLoader(
        Numbered(length), batch_size=4, num_workers=workers, **{"collate_fn": collate, **options}
    )


def expected(length: int) -> Iterator[Frames]:
    """What torch's own collation gives in this process."""
    return iter(DataLoader(Numbered(length), batch_size=4))


def same(one: Frames, other: Frames) -> bool:
    return type(one) is Frames and all(
        torch.equal(ours, theirs) and ours.dtype == theirs.dtype
        for ours, theirs in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_a_batch_arrives_as_torch_would_send_it(workers: int, length: int) -> None:
    for one, other in zip(loader(length, workers), expected(length), strict=True):
        assert same(one, other)


def test_batches_that_are_kept_are_not_written_over() -> None:
    every = list(loader(4 * 6 * KEPT))  # more than the processes keep memory for
    assert all(same(one, other) for one, other in zip(every, expected(4 * 6 * KEPT), strict=True))


def test_a_view_keeps_its_pixels_when_the_batch_is_gone() -> None:
    views, whole = [], []
    for batch in loader(160, persistent_workers=True):
        views.append(batch.image[1, :, 2:5])
        whole.append(batch.image.clone()[1, :, 2:5])
        del batch
    assert all(torch.equal(view, copy) for view, copy in zip(views, whole, strict=True))


@linux
def test_memory_is_used_again_over_epochs() -> None:
    batches = loader(200, workers=1, persistent_workers=True)
    for _ in range(3):
        for one, other in zip(batches, expected(200), strict=True):
            assert same(one, other)
    (worker,) = batches._iterator._workers  # pyright: ignore
    held = {
        file.stat().st_ino
        for file in Path(f"/proc/{worker.pid}/fd").iterdir()
        if "memfd:frames" in str(file.readlink())
    }
    assert 1 <= len(held) < KEPT  # two ahead, one in hand, one in the making


@linux
def test_a_process_forked_meanwhile_does_not_give_memory_back() -> None:
    batches = iter(loader(400, workers=1))
    first = next(batches)
    copy = first.image.clone()
    if (child := os.fork()) == 0:
        del first
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    for _ in batches:
        assert torch.equal(first.image, copy)
    assert torch.equal(first.image, copy)


def test_an_epoch_that_is_left_early_can_be_begun_again() -> None:
    batches = loader(100, persistent_workers=True)
    for stop in (1, 5, 2):
        for number, (one, other) in enumerate(zip(batches, expected(100), strict=False)):
            assert same(one, other)
            if number == stop:
                break
    assert all(same(one, other) for one, other in zip(batches, expected(100), strict=True))


def test_other_processes_than_forked_ones_send_alike() -> None:
    for one, other in zip(
        loader(20, workers=1, multiprocessing_context="spawn"), expected(20), strict=True
    ):
        assert same(one, other)
