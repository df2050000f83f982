from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fmsd.data.entries import from_entries
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.sampler import ProcessBatches, Shuffle
from fmsd.data.loading.transforms import build_transform
from fmsd.data.manifest import Manifest
from fmsd.data.sources import folder
from fmsd.errors import InputError
from fmsd.types import Frames


@pytest.fixture
def manifest(tree: Path) -> Manifest:
    splits = {"train": "train", "val": "val", "test": "test"}
    return from_entries(
        folder.scan(tree, "tree", "{split}/{domain}/{video}", splits, ["real"]), tree
    )  # pyright: ignore[reportArgumentType]


def batches(
    manifest: Manifest, workers: int, epoch: int = 0, augment: str = "light"
) -> list[Frames]:
    dataset = FrameDataset(manifest, ["real", "swap"], 24, augment, seed=3)
    sampler = ProcessBatches(Shuffle(dataset.domain, size=5, seed=3))
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))


def test_a_batch_holds_bytes_labels_domains_and_rows(manifest: Manifest) -> None:
    first, *_ = batches(manifest, 0)
    assert isinstance(first, Frames)
    assert first.image.shape == (5, 3, 24, 24)
    assert first.image.dtype == torch.uint8
    table = manifest.table[first.row.numpy()]
    assert first.label.tolist() == table["label"].to_list()
    assert [["real", "swap"][domain] for domain in first.domain] == table["domain"].to_list()


def test_pixels_and_order_depend_on_seed_and_epoch_alone(manifest: Manifest) -> None:
    alone, shared = batches(manifest, 0), batches(manifest, 2)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.row, other.row)
        assert torch.equal(one.image, other.image)
    again = batches(manifest, 0, epoch=1)
    assert not torch.equal(
        torch.cat([batch.row for batch in alone]), torch.cat([batch.row for batch in again])
    )
    pixels = [
        {
            int(row): image
            for batch in run
            for row, image in zip(batch.row, batch.image, strict=True)
        }
        for run in (alone, again)
    ]
    assert any(not torch.equal(pixels[0][row], pixels[1][row]) for row in pixels[0])


def test_rows_are_held_in_arrays_which_loader_processes_share(manifest: Manifest) -> None:
    dataset = FrameDataset(
        manifest, ["real", "swap"], 24, "sbi", corruption=Corruption("jpeg", 3), strong="light"
    )
    by_row = {
        name: value
        for name, value in vars(dataset).items()
        if hasattr(value, "__len__") and len(value) == len(dataset)
    }
    assert {"files", "label", "domain", "frame_seeds"} <= by_row.keys()
    for name, value in by_row.items():  # looking at a Python object copies its page in a process
        assert isinstance(value, np.ndarray), name
        assert value.dtype != object, name


def test_every_row_comes_once_an_epoch(manifest: Manifest) -> None:
    assert sorted(torch.cat([batch.row for batch in batches(manifest, 0)]).tolist()) == list(
        range(len(manifest))
    )


def test_no_augmentation_is_plain_resizing(manifest: Manifest) -> None:
    first, second = batches(manifest, 0, 0, "none"), batches(manifest, 0, 1, "none")
    pixels = [
        {
            int(row): image
            for batch in run
            for row, image in zip(batch.row, batch.image, strict=True)
        }
        for run in (first, second)
    ]
    assert all(torch.equal(pixels[0][row], pixels[1][row]) for row in pixels[0])


def test_an_unreadable_image_stops_the_loader_with_its_name(manifest: Manifest) -> None:
    broken = Path(manifest.files()[4])
    broken.write_bytes(broken.read_bytes()[:200])
    for workers in (0, 1):
        with pytest.raises(InputError, match=str(broken)):
            batches(manifest, workers)


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"data.augment=heavy is unknown; choose one of light, none"
    ):
        build_transform("heavy", 24)
