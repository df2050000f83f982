"""The second, strongly augmented view of training frames."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.sampler import ProcessBatches, Shuffle
from fmsd.data.manifest import Manifest
from fmsd.errors import InputError
from tests.conftest import grow_tree
from tests.test_engine import module


@pytest.fixture
def manifest(tree: Path) -> Manifest:
    return module(tree).splits.train


def loaded(
    manifest: Manifest,
    strong: str | None,
    workers: int = 0,
    augment: str = "light",
    epoch: int = 0,
    processes: int = 1,
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Both views of each row in an epoch."""
    dataset = FrameDataset(manifest, ["real", "swap"], 24, augment, seed=3, strong=strong)
    views = {}
    for rank in range(processes):
        sampler = ProcessBatches(Shuffle(dataset.domain, size=5, seed=3), rank, processes, epoch, 0)
        for batch in DataLoader(dataset, batch_sampler=sampler, num_workers=workers):
            views |= {
                int(row): (image, second)
                for row, image, second in zip(batch.row, batch.image, batch.strong, strict=True)
            }
    return views


@pytest.mark.parametrize("augment", ["light", "none", "dfb"])
def test_the_first_view_is_the_same_with_and_without_a_second(
    augment: str,
    manifest: Manifest,
) -> None:
    alone = loaded(manifest, None, augment=augment)
    both = loaded(manifest, "effort", augment=augment)
    assert alone.keys() == both.keys()
    assert all(torch.equal(alone[row][0], both[row][0]) for row in alone)
    assert all(second.numel() == 0 for _, second in alone.values())
    assert all(second.shape == first.shape for first, second in both.values())
    assert any(not torch.equal(first, second) for first, second in both.values())


def test_both_views_are_drawn_apart_even_by_one_augmentation(
    manifest: Manifest,
) -> None:
    both = loaded(manifest, "dfb", augment="dfb")
    assert any(not torch.equal(first, second) for first, second in both.values())


def test_the_second_view_depends_on_seed_epoch_row_and_occurrence_alone(
    manifest: Manifest,
) -> None:
    one, shared = loaded(manifest, "dfb"), loaded(manifest, "dfb", workers=1)
    split = loaded(manifest, "dfb", processes=2)
    later = loaded(manifest, "dfb", epoch=1)
    for row, (_, second) in one.items():
        assert torch.equal(second, shared[row][1])
        assert torch.equal(second, split[row][1])
    assert any(not torch.equal(second, later[row][1]) for row, (_, second) in one.items())
    dataset = FrameDataset(manifest, ["real", "swap"], 24, "light", seed=3, strong="dfb")
    shown = [dataset[0, 1, 0, occurrence].strong for occurrence in range(6)]
    assert torch.equal(shown[0], one[1][1])
    assert len({view.numpy().tobytes() for view in shown}) > 1


def test_a_blend_has_both_views(tmp_path: Path) -> None:
    """With no change but resizing, the second view of a blend is not the frame it was made of."""
    data = module(grow_tree(tmp_path, videos=3), augment="sbi", strong="none")
    plain = FrameDataset(data.splits.train, ["real", "sbi"], 32)
    alone = module(tmp_path, augment="sbi").train_dataloader()
    labels = []
    for one, other in zip(alone, data.train_dataloader(), strict=True):
        assert torch.equal(one.image, other.image)
        labels += other.label.tolist()
        for row, label, view in zip(other.row, other.label, other.strong, strict=True):
            assert torch.equal(view, plain[int(row)].image) == (label == 0)
    assert 0 < sum(labels) < len(labels)


def test_validation_and_test_frames_have_one_view(tmp_path: Path) -> None:
    data = module(grow_tree(tmp_path), strong="dfb")
    for loader in (*data.val_dataloader(), data.test_loader("mine")):
        assert all(batch.strong.numel() == 0 for batch in loader)


def test_a_resumed_training_has_the_same_views(tmp_path: Path) -> None:
    tree = grow_tree(tmp_path, domains=("real", "swap", "blend"), videos=6)
    settings = {"batch_size": 8, "batches": "balanced", "augment": "flip", "strong": "light"}
    whole = list(module(tree, **settings).train_dataloader())
    resumed = module(tree, **settings)
    resumed.load_state_dict({"epoch": 0, "batch": 3})
    for one, other in zip(whole[3:], list(resumed.train_dataloader()), strict=True):
        assert torch.equal(one.strong, other.strong)


def test_an_unknown_augmentation_is_refused_by_its_key(tmp_path: Path) -> None:
    data = module(grow_tree(tmp_path), strong="heavy")
    with pytest.raises(InputError, match=r"data\.strong=heavy is unknown; choose one of light"):
        data.train_dataloader()
