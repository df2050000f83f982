"""Self-blended images: which frames become fakes, where, and how."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame
from fmsd.data.loading import blending
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import read_image
from fmsd.data.loading.sampler import ProcessBatches, Shuffle
from fmsd.data.loading.transforms import build_transform, with_generator
from fmsd.data.manifest import Manifest
from fmsd.data.sources import folder
from fmsd.engine.measurement_batches import MeasurementBatches
from fmsd.errors import InputError
from tests.conftest import grow_tree, write_image
from tests.test_engine import SPLITS, module

SIDE = 64


def smooth(seed: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A picture with structure at several scales, so that moving, colouring and coarsening all
    show.
    """
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(40, 216, (n, n, 3), np.uint8)).resize((width, height), 3),
            float,
        )
        for n in (4, 16, SIDE)
    ]
    return np.mean(layers, 0).astype(np.uint8)


def marked(
    root: Path, centre: tuple[float, float] = (16, 16), reach: float = 8, count: int = 81
) -> Path:
    """A frame of DeepfakeBench's tree whose landmarks lie in a disc."""
    path = root / "frames" / "033" / "000.png"
    for place in (path, root / "landmarks" / "033" / "000.npy"):
        place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth()).save(path)
    angle = np.linspace(0, 2 * np.pi, count)
    np.save(
        root / "landmarks" / "033" / "000.npy",
        np.column_stack([np.cos(angle), np.sin(angle)]) * reach + centre,
    )
    return path


def manifest_of(tree: Path) -> Manifest:
    return from_entries(
        folder.scan(tree, "tree", "{split}/{domain}/{video}", SPLITS, ["real"]), tree
    )  # pyright: ignore[reportArgumentType]


# ---- which frames


def test_real_training_frames_stand_twice_and_training_fakes_are_left_out(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = manifest_of(tree)
    with caplog.at_level(logging.INFO):
        after = blending.add_self_blended(before)
    assert (
        "each of the 4 real training frames is also blended into a fake; 4 fakes of the training "
        "split are left out" in caplog.text
    )
    assert "by its landmarks in 0 frames, by the outline of a mean face in 4" in caplog.text
    assert after.where(split=["val", "test"]).table.equals(
        before.where(split=["val", "test"]).table
    )
    real = before.where(split="train", domain="real").table
    assert after.where(split="train", domain="real").table.equals(real)
    blends = after.where(split="train", domain="sbi").table
    assert blends["path"].to_list() == real["path"].to_list()
    assert blends["index"].to_list() == real["index"].to_list()
    assert blends["label"].unique().to_list() == [1]
    assert set(after.where(split="train").table["domain"]) == {"real", "sbi"}
    assert not set(blends["video"]) & set(before.table["video"])
    assert blends["video"].n_unique() == real["video"].n_unique()
    assert after.table.schema == before.table.schema


# ---- where the face is


def test_the_mean_face_is_symmetric_and_holds_eyes_and_mouth_of_an_aligned_crop() -> None:
    arcface = (
        np.array(
            [
                [38.2946, 51.6963],
                [73.5318, 51.5014],
                [56.0252, 71.7366],
                [41.5493, 92.3655],
                [70.7299, 92.2041],
            ]
        )
        / 112
    )
    places = ((arcface - 0.5) / 1.3 + 0.5) * 256
    whole, lower = (blending.hull_mask(points * 256, 256, 256) for points in blending.MEAN_FACE)
    for mask in (whole, lower):
        assert all(mask[round(y), round(x)] == 1 for x, y in places)
        assert np.abs(mask - mask[:, ::-1]).mean() < 0.01
    assert (whole >= lower).all()
    assert 0.1 < lower.mean() < whole.mean() < 0.5


def test_landmarks_lie_beside_frames() -> None:
    assert blending.landmark_file("/d/c23/frames/033/007.png") == Path(
        "/d/c23/landmarks/033/007.npy"
    )
    assert blending.landmark_file("/d/c23/images/033/007.png") == Path(
        "/d/c23/images/033/007.landmarks.npy"
    )
    assert blending.landmark_file("007.png") == Path("007.landmarks.npy")


@pytest.mark.parametrize(
    ("made", "told"),
    [({"align": False}, "align=false"), ({"margin": 1.5}, r"margin=1\.5"), ({"margin": 1.3}, None)],
)
def test_crops_that_the_mean_face_does_not_fit_need_landmarks(
    tmp_path: Path, made: dict[str, Any], told: str | None
) -> None:
    path = marked(tmp_path)
    (tmp_path / "extract.json").write_text(
        json.dumps({"align": True, "margin": 1.3, "frames": 32, "sampling": "spread"} | made)
    )
    frame = Frame(path, 0, "mine", "real", "mine/real/033", 0, "train")
    manifest = from_entries([frame], tmp_path)
    assert len(blending.add_self_blended(manifest)) == 2
    (tmp_path / "landmarks" / "033" / "000.npy").unlink()
    if told is None:
        assert len(blending.add_self_blended(manifest)) == 2
        return
    with pytest.raises(
        InputError,
        match=rf"were made with {told}, where the mean face of data\.augment=sbi does not fit",
    ):
        blending.add_self_blended(manifest)


def test_landmarks_are_used_where_the_copy_has_them(tmp_path: Path) -> None:
    path = marked(tmp_path)
    whole, lower = blending.face_outlines(path, SIDE, SIDE)
    assert (len(whole), len(lower)) == (81, 68)
    found = blending.hull_mask(whole, SIDE, SIDE)
    down, across = np.nonzero(found)
    assert abs(down.mean() - 16) < 1
    assert abs(across.mean() - 16) < 1
    assert abs(found.sum() - np.pi * 8**2) < 40
    (tmp_path / "landmarks" / "033" / "000.npy").unlink()
    assert [len(points) for points in blending.face_outlines(path, SIDE, SIDE)] == [
        len(points) for points in blending.MEAN_FACE
    ]


def test_damaged_landmarks_are_refused_by_name(tmp_path: Path) -> None:
    path = marked(tmp_path)
    place = tmp_path / "landmarks" / "033" / "000.npy"
    whole = place.read_bytes()
    good = np.load(place)
    for content, said in (
        (b"", "cannot be read"),
        (whole[:-50], "cannot be read"),
        (b"no array", "cannot be read"),
    ):
        place.write_bytes(content)
        with pytest.raises(InputError, match=rf"033/000\.npy {said} .*fetch it again"):
            blending.face_outlines(path, SIDE, SIDE)
    tables: list[tuple[Any, str]] = [
        (np.array([{"pickled": 1}], object), "cannot be read"),
        (
            good[:68],
            "are 68 points, where 81 points are wanted, 13 of them on the forehead, or MediaPipe's "
            "478; make",
        ),
        (good[:, :1], "are a table of 81 x 1 numbers, where 81 points"),
        (good.astype(str), "are no table of numbers"),
        (good * np.nan, "mark no face inside its frame of 64 x 64"),
        (good + 200, "mark no face"),
        (good * 0 + 5, "mark no face"),
        (good * 1e30, "mark no face"),
    ]
    for table, said in tables:
        np.save(place, table, allow_pickle=True)
        with pytest.raises(InputError, match=rf"000\.npy.*({said})"):
            blending.face_outlines(path, SIDE, SIDE)


# ---- the blend


def test_a_blend_is_the_source_inside_and_the_target_outside() -> None:
    source, target = smooth(1), smooth(2)
    assert np.array_equal(
        blending.alpha_blend(source, target, np.ones((SIDE, SIDE), np.float32)), source
    )
    assert np.array_equal(
        blending.alpha_blend(source, target, np.zeros((SIDE, SIDE), np.float32)), target
    )
    halfway = blending.alpha_blend(source, target, np.full((SIDE, SIDE), 0.5, np.float32))
    assert np.abs(halfway - (source.astype(float) + target) / 2).max() <= 0.5


@pytest.mark.parametrize("side", [24, 64, 256])
def test_masks_lie_between_0_and_1_and_keep_to_the_face(side: int) -> None:
    face = blending.hull_mask(blending.MEAN_FACE[0] * side, side, side)
    masks = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        masks.append(blending.soften_mask(blending.deform_mask(face, rng), rng))
        assert masks[-1].min() >= 0
        assert masks[-1].max() == 1
        assert masks[-1][: side // 20].max() < 0.01
        assert np.average(face, weights=masks[-1]) > 0.9
    assert len({mask.tobytes() for mask in masks}) == 20


def test_a_face_too_small_to_shrink_keeps_its_mask() -> None:
    dot = np.zeros((256, 256), np.float32)
    dot[100, 100] = 1
    assert blending.soften_mask(dot, np.random.default_rng(0)).max() == 1


def test_deformation_without_strength_changes_nothing() -> None:
    face = blending.hull_mask(blending.MEAN_FACE[0] * SIDE, SIDE, SIDE)
    assert np.array_equal(blending.deform_mask(face, np.random.default_rng(0), strength=0), face)


def test_the_shift_keeps_to_its_limits() -> None:
    for seed in range(200):
        matrix = blending.draw_shift(100, 200, np.random.default_rng(seed))
        scale = matrix[0, 0]
        assert matrix[1, 1] == scale
        assert 0.95 <= scale <= 1 / 0.95
        moved = matrix @ (100, 50, 1) - (100, 50)
        assert abs(moved[0]) <= 6
        assert abs(moved[1]) <= 1.5


def test_a_self_blend_changes_the_face_or_all_but_the_face() -> None:
    image = smooth(0, 72, 60)
    faces = [points * (60, 72) for points in blending.MEAN_FACE]
    inside = 0
    for seed in range(40):
        blended = blending.self_blend(image, faces, np.random.default_rng(seed))
        assert blended.shape == image.shape
        assert not np.array_equal(blended, image)
        changed = np.abs(blended.astype(int) - image).sum(2)
        border = np.concatenate(
            [changed[:3].ravel(), changed[:, :3].ravel(), changed[:, -3:].ravel()]
        )
        if not border.any():
            inside += 1
            assert changed[30:60, 20:40].mean() > 0
    assert 10 <= inside <= 30


def test_the_middle_of_the_face_shows_the_source_at_one_of_the_ratios() -> None:
    """On an even colour moving, coarsening and sharpening change nothing, so that the share can be
    read off.
    """
    image, seen = np.full((SIDE, SIDE, 3), (180, 120, 90), np.uint8), []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        swapped = rng.random() >= 0.5
        other = blending.alter(image, rng)
        source, target = ((other, image), (image, other))[swapped]
        middle = np.s_[38, 32]
        blended = blending.self_blend(
            image, [blending.MEAN_FACE[0] * SIDE], np.random.default_rng(seed)
        )
        distance = source[middle].astype(float) - target[middle]
        if np.abs(distance).max() > 20:
            channel = np.abs(distance).argmax()
            seen.append(
                (float(blended[middle][channel]) - target[middle][channel]) / distance[channel]
            )
    nearest = np.array(
        [
            min(blending.BLEND_RATIOS, key=lambda ratio, share=share: abs(ratio - share))
            for share in seen
        ]
    )
    assert np.abs(nearest - seen).max() < 0.05
    assert set(nearest) == {0.25, 0.5, 0.75, 1.0}
    assert 0.3 < (nearest == 1).mean() < 0.7


def test_a_face_that_a_shift_moves_out_of_the_frame_is_blended_where_it_was() -> None:
    """A column of pixels at either side, of which the shift and the deformation often leave
    nothing; an even colour shows where the blend is.
    """
    image = np.full((SIDE, SIDE, 3), (180, 120, 90), np.uint8)
    left = np.array([(-9, 2), (0, 2), (0, 60), (-9, 60)], float)
    for face in (left, [SIDE - 1, 0] - left * [1, -1]):
        column = blending.hull_mask(face, SIDE, SIDE) > 0
        assert column.sum() == 59
        for seed in range(60):
            with np.errstate(all="raise"):
                blended = blending.self_blend(image, [face], np.random.default_rng(seed)).astype(
                    int
                )
            rest = blended[:, SIDE // 4 : -SIDE // 4]
            assert (rest == rest[0, 0]).all()
            assert np.abs(rest[0, 0] - image[0, 0]).max() < 80
            assert (blended != rest[0, 0]).any()


def test_a_blend_depends_on_its_generator_alone() -> None:
    image, faces = smooth(), [points * SIDE for points in blending.MEAN_FACE]
    drawn = [blending.self_blend(image, faces, np.random.default_rng(seed)) for seed in range(10)]
    again = [blending.self_blend(image, faces, np.random.default_rng(seed)) for seed in range(10)]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({pixels.tobytes() for pixels in drawn}) == 10


def test_real_faces_blend_inside_their_crop(real_data: Path) -> None:
    for path in sorted((real_data / "faces" / "uadfv" / "real").rglob("*.jpg"))[:4]:
        image = read_image(path)
        height, width = image.shape[:2]
        blends = [
            blending.self_blend(
                image, blending.face_outlines(path, height, width), np.random.default_rng(seed)
            )
            for seed in range(8)
        ]
        assert all(0 < np.abs(blended.astype(int) - image).mean() < 60 for blended in blends)


# ---- through dataset, loader and data module


def loaded(manifest: Manifest, workers: int, epoch: int = 0) -> dict[int, torch.Tensor]:
    dataset = FrameDataset(manifest, ["real", "sbi"], 24, "sbi", seed=3)
    sampler = ProcessBatches(Shuffle(dataset.domain, size=3, seed=3))
    sampler.set_epoch(epoch)
    batches = list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
    return {
        int(row): image
        for batch in batches
        for row, image in zip(batch.row, batch.image, strict=True)
    }


def test_blends_do_not_depend_on_the_number_of_workers_but_on_the_epoch(tree: Path) -> None:
    manifest = blending.add_self_blended(manifest_of(tree)).where(split="train")
    alone, shared, later = loaded(manifest, 0), loaded(manifest, 2), loaded(manifest, 0, epoch=1)
    assert all(torch.equal(alone[row], shared[row]) for row in alone)
    assert not any(torch.equal(alone[row], later[row]) for row in alone)


def test_only_rows_of_the_domain_are_blended_and_only_by_this_augmentation(tree: Path) -> None:
    manifest = blending.add_self_blended(manifest_of(tree)).where(split="train")
    dataset = FrameDataset(manifest, ["real", "sbi"], 24, "sbi", seed=3)
    steps = build_transform("sbi", 24)
    for row, (domain, file) in enumerate(
        zip(manifest.table["domain"], manifest.files(), strict=True)
    ):
        image, rng = read_image(file), np.random.default_rng([3, 0, row])
        if domain == "sbi":
            image = blending.self_blend(image, blending.face_outlines(file, 32, 32), rng)
        expected = with_generator(steps, rng)(image=image)["image"].transpose(2, 0, 1)
        assert np.array_equal(dataset[row].image.numpy(), expected)
        assert int(dataset[row].label) == (domain == "sbi")
    plain = FrameDataset(manifest, ["real", "sbi"], 24, "none")
    half = len(manifest) // 2
    assert all(torch.equal(plain[row].image, plain[row + half].image) for row in range(half))


def test_training_learns_from_real_frames_and_blends_and_validates_on_fakes(tree: Path) -> None:
    data = module(tree, augment="sbi", batches="balanced")
    assert data.training_domains == ["sbi"]
    assert set(data.splits.validation.table["domain"]) == {"real", "swap"}
    assert set(data.tests["mine"].table["domain"]) == {"real", "swap"}
    loader = data.train_dataloader()
    assert len(loader) == 2
    for batch in loader:
        assert batch.image.shape == (4, 3, 32, 32)
        assert batch.label.tolist().count(1) == 2
    batches = MeasurementBatches(data, torch.device("cpu"))
    assert batches.domains == ["sbi"]
    (drawn,) = batches.draw(1, "sbi")
    assert set(drawn.label.tolist()) == {0, 1}


def test_real_training_frames_alone_are_enough(tmp_path: Path) -> None:
    root = grow_tree(tmp_path / "tree", splits=("val", "test"))
    write_image(root / "train" / "real" / "one" / "0.png", 5)
    assert module(root, augment="sbi").splits.train.table["label"].sort().to_list() == [0, 1]
    with pytest.raises(InputError, match="only real"):
        module(root, augment="light")


def test_fakes_alone_are_not_enough(tmp_path: Path) -> None:
    root = grow_tree(tmp_path / "tree", splits=("val", "test"))
    write_image(root / "train" / "swap" / "one" / "0.png", 5)
    with pytest.raises(InputError, match="no frames"):
        module(root, augment="sbi")
