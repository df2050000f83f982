"""Corruptions: the same pixels whatever happens around them, more of it at every severity, and what
encoders of others make of an image.
"""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fmsd.data.entries import from_entries
from fmsd.data.loading.corruptions import (
    FUNCTIONS,
    NAMES,
    SEVERITIES,
    STRENGTHS,
    Corruption,
    corrupt,
    frame_seed,
    parse_corruptions,
)
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import read_image
from fmsd.data.manifest import Manifest
from fmsd.data.sources import folder
from fmsd.errors import InputError


def natural(height: int = 96, width: int = 128) -> np.ndarray:
    """Coloured shapes on a gradient with fine texture, somewhat blurred: edges, flat parts and
    detail as in a photograph.
    """
    rng = np.random.default_rng(0)
    image = (
        np.linspace(60, 180, width)[None, :, None]
        + np.linspace(-30, 30, height)[:, None, None]
        + rng.normal(0, 12, (height, width, 3))
    )
    for _ in range(12):
        centre, radius = (
            (int(rng.integers(width)), int(rng.integers(height))),
            int(rng.integers(5, 20)),
        )
        cv2.circle(image, centre, radius, rng.integers(30, 220, 3).tolist(), -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8).clip(0, 255).astype(np.uint8)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_every_row_of_the_table_has_its_function_and_five_levels() -> None:
    assert tuple(FUNCTIONS) == NAMES
    assert all(len(levels) == len(SEVERITIES) for levels in STRENGTHS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_severer_corruption_lies_farther_from_the_image(name: str) -> None:
    image = natural()
    far = [distance(image, corrupt(image, name, severity, seed=1)) for severity in SEVERITIES]
    assert far[0] > 0
    assert far == sorted(far)
    assert len(set(far)) == len(far)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_follow_from_the_arguments_alone(name: str) -> None:
    image = natural()
    before = image.copy()
    first = corrupt(image, name, 3, seed=7)
    np.random.seed(5)  # noqa: NPY002  the global state that must not matter
    cv2.setRNGSeed(5)
    torch.manual_seed(5)
    corrupt(image, name, 5, seed=8)
    np.testing.assert_array_equal(corrupt(image, name, 3, seed=7), first)
    np.testing.assert_array_equal(image, before)
    assert (name in ("noise", "blockwise")) == (
        distance(corrupt(image, name, 3, seed=8), first) > 0
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 7), (33, 255), (3, 200)])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_kept(name: str, shape: tuple[int, int]) -> None:
    for severity in (1, 5):
        result = corrupt(natural(*shape), name, severity, seed=0)
        assert result.shape == (*shape, 3)
        assert result.dtype == np.uint8


@pytest.mark.parametrize("name", [name for name in NAMES if name != "noise"])
def test_grey_stays_grey(name: str) -> None:
    grey = np.repeat(natural()[..., :1], 3, axis=2)
    result = corrupt(grey, name, 4, seed=0).astype(int)
    assert np.abs(result - result[..., :1]).max() <= 2  # rounding of colour spaces


def test_jpeg_is_that_of_a_file(tmp_path: Path) -> None:
    for severity, quality in enumerate((25, 18, 15, 10, 7), 1):
        Image.fromarray(natural()).save(tmp_path / "x.jpg", quality=quality)
        np.testing.assert_array_equal(
            corrupt(natural(), "jpeg", severity, seed=0), read_image(tmp_path / "x.jpg")
        )
    coded = cv2.imencode(".jpg", natural()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 7])[1]
    other = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB))
    assert distance(corrupt(natural(), "jpeg", 5, seed=0), other) < 0.5


@pytest.mark.parametrize("crf", [30, 40])
def test_h264_is_that_of_a_video_file(crf: int, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mp4"), "w") as video:
        stream: Any = video.add_stream(
            "libx264", rate=25, options={"crf": str(crf), "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        video.mux(stream.encode(av.VideoFrame.from_ndarray(natural(), format="rgb24")))
        video.mux(stream.encode(None))
    with av.open(str(tmp_path / "x.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        (frame,) = video.decode(video=0)
    severity = STRENGTHS["h264"].index(crf) + 1
    np.testing.assert_array_equal(
        corrupt(natural(), "h264", severity, seed=0), frame.to_ndarray(format="rgb24")
    )


def test_odd_sides_change_nothing_but_a_line_of_padding() -> None:
    even = natural(40, 60)
    padded = even[:39, :59][np.minimum(np.arange(40), 38)][:, np.minimum(np.arange(60), 58)]
    np.testing.assert_array_equal(
        corrupt(even[:39, :59], "h264", 2, seed=0), corrupt(padded, "h264", 2, seed=0)[:39, :59]
    )


def test_noise_has_the_variance_of_its_level_in_luma() -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    for severity, variance in enumerate((0.001, 0.002, 0.005), 1):  # beyond them values are cut off
        luma = corrupt(grey, "noise", severity, seed=3) @ np.array([0.299, 0.587, 0.114])
        assert luma.std() * 219 / 255 / 255 == pytest.approx(variance**0.5, rel=0.03)
        assert luma.mean() == pytest.approx(128, abs=0.5)


def test_levels_have_the_effect_they_name() -> None:
    image = natural()
    np.testing.assert_allclose(corrupt(image, "contrast", 3, seed=0), image * 0.6, atol=0.51)
    brighter = corrupt(image, "brightness", 2, seed=0).max(axis=2)
    np.testing.assert_allclose(brighter, np.minimum(image.max(axis=2) + 0.2 * 255, 255), atol=1)
    pale = corrupt(image, "saturation", 5, seed=0).astype(int)
    assert np.ptp(pale, axis=2).max() == 0
    np.testing.assert_allclose(pale[..., 0], image @ np.array([0.299, 0.587, 0.114]), atol=1)
    kernel = np.exp(-0.5 * ((np.arange(9) - 4) / 1.5) ** 2)
    kernel /= kernel.sum()
    spot = np.zeros((21, 21, 3), np.uint8)
    spot[10, 10] = 255
    np.testing.assert_allclose(
        corrupt(spot, "blur", 2, seed=0)[6:15, 6:15, 0], 255 * np.outer(kernel, kernel), atol=1
    )
    squares = corrupt(image, "pixelate", 5, seed=0)
    np.testing.assert_array_equal(
        squares, np.repeat(np.repeat(squares[::4, ::4], 4, axis=0), 4, axis=1)
    )
    np.testing.assert_allclose(squares[0, 0], image[:4, :4].mean(axis=(0, 1)), atol=1)


def test_blocks_are_grey_count_with_the_size_and_grow_in_number() -> None:
    black = np.zeros((512, 512, 3), np.uint8)
    before = np.zeros((512, 512), bool)
    for severity in SEVERITIES:
        result = corrupt(black, "blockwise", severity, seed=2)
        assert set(np.unique(result)) == {0, 128}
        covered = result[..., 0] > 0
        assert (covered | ~before).all()
        assert (
            0.8 < covered.sum() / (2 * STRENGTHS["blockwise"][severity - 1] * 64) <= 1
        )  # some lie on others
        before = covered


def test_unknown_corruptions_and_severities_are_refused() -> None:
    with pytest.raises(
        InputError, match="There is no corruption 'jpg'; choose among jpeg, h264, noise"
    ):
        corrupt(natural(), "jpg", 1, seed=0)
    for severity in (0, 6):
        with pytest.raises(
            InputError, match=f"There is no severity {severity}; choose among 1, 2, 3, 4, 5"
        ):
            corrupt(natural(), "jpeg", severity, seed=0)


def test_what_is_chosen_on_the_command_line() -> None:
    assert parse_corruptions(None, [1, 2, 3, 4, 5]) == []
    assert parse_corruptions("all", [2]) == [(name, 2) for name in NAMES]
    assert parse_corruptions("blur", 3) == [Corruption("blur", 3)]
    assert parse_corruptions(["jpeg", "blur"], [1, 5]) == [
        ("jpeg", 1),
        ("jpeg", 5),
        ("blur", 1),
        ("blur", 5),
    ]
    for names, severities, said in (
        (["jpeg", "jpeg"], [1], "repeats something"),
        ("all", [1, 1], "repeats something"),
        ([], [1], r"corrupt=\[\] is empty"),
        ("all", [], r"severities=\[\] is empty"),
        (None, [1], "means nothing without a corruption"),
        (["jpeg", "fog"], [1], "no corruption 'fog'"),
        (3, [1], "no corruption 3"),
        ("jpeg", [1.0], "no severity 1.0"),
        ("jpeg", True, "no severity True"),
        ("jpeg", "2", "no severity '2'"),
    ):
        with pytest.raises(InputError, match=said):
            parse_corruptions(names, severities)


@pytest.fixture
def manifest(tree: Path) -> Manifest:
    splits = {"train": "train", "val": "val", "test": "test"}
    return from_entries(
        folder.scan(tree, "tree", "{split}/{domain}/{video}", splits, ["real"]), tree
    )  # pyright: ignore[reportArgumentType]


def pixels(
    manifest: Manifest, corruption: Corruption | None, workers: int = 0, size: int = 32
) -> dict[str, torch.Tensor]:
    dataset = FrameDataset(manifest, ["real", "swap"], size, corruption=corruption)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=workers))
    rows = torch.cat([batch.row for batch in batches]).tolist()
    return dict(
        zip(
            manifest.table["path"][rows], torch.cat([batch.image for batch in batches]), strict=True
        )
    )


@pytest.mark.parametrize("name", ["noise", "h264"])
def test_a_frame_is_corrupted_alike_in_every_loader_and_every_subset(
    name: str, manifest: Manifest
) -> None:
    corruption = Corruption(name, 2)
    whole, shared = pixels(manifest, corruption), pixels(manifest, corruption, workers=2)
    some = pixels(manifest.where(split="test", domain="swap").first(1), corruption)
    assert 0 < len(some) < len(whole)
    for found in (shared, some):
        assert all(torch.equal(image, whole[path]) for path, image in found.items())
    path = next(iter(some))
    expected = corrupt(read_image(manifest.root / path), name, 2, frame_seed(path))
    np.testing.assert_array_equal(
        some[path].permute(1, 2, 0).numpy(), expected
    )  # images of 32 pixels are not resized


def test_frames_have_noise_of_their_own(manifest: Manifest) -> None:
    seeds = [frame_seed(path) for path in manifest.table["path"]]
    assert len(set(seeds)) == len(seeds)
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert distance(*(corrupt(grey, "noise", 1, seed) for seed in seeds[:2])) > 1


def test_the_stored_image_is_corrupted_before_it_is_resized(manifest: Manifest) -> None:
    path = manifest.table["path"][0]
    stored = corrupt(read_image(manifest.root / path), "pixelate", 5, frame_seed(path))
    small = pixels(manifest, Corruption("pixelate", 5), size=16)[path].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(small, cv2.resize(stored, (16, 16), interpolation=cv2.INTER_AREA))
    assert not torch.equal(
        pixels(manifest, None, size=16)[path], torch.from_numpy(small).permute(2, 0, 1)
    )
