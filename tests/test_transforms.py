"""The named augmentations do what they say, each step on its own."""

from collections import Counter

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import pytest

from fmsd.data.loading.transforms import AUGMENTATIONS, build_transform, with_generator
from fmsd.errors import InputError

COLOURS = {"RandomBrightnessContrast": 1 / 6, "FancyPCA": 1 / 6, "HueSaturationValue": 1 / 6}
PARTS = {
    "dfb": {
        "HorizontalFlip": 0.5,
        "Rotate": 0.5,
        "GaussianBlur": 0.5,
        "ImageCompression": 0.5,
        **COLOURS,
    },
    "effort": {
        **{
            "HorizontalFlip": 0.5,
            "RandomBrightnessContrast": 0.5,
            "HueSaturationValue": 0.3,
            "RandomGamma": 0.3,
            "GlassBlur": 0.3,
        },
        **dict.fromkeys(
            (
                "ImageCompression",
                "GaussNoise",
                "MotionBlur",
                "CLAHE",
                "ChannelShuffle",
                "CoarseDropout",
            ),
            0.1,
        ),
    },
    "sbi": {
        "HorizontalFlip": 0.5,
        "ImageCompression": 0.5,
        **dict.fromkeys(("RGBShift", "HueSaturationValue", "RandomBrightnessContrast"), 0.3),
    },
}
"""How often each step of an augmentation acts."""

DRAWS = 300


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def draw(name: str, image: np.ndarray, seed: int, size: int = 32) -> np.ndarray:
    return with_generator(build_transform(name, size), np.random.default_rng(seed))(image=image)[
        "image"
    ]


def applied(name: str) -> list[dict[str, dict]]:
    """What each of many draws applied: step -> its parameters."""
    steps = A.Compose(AUGMENTATIONS[name](A.Resize(24, 24)), save_applied_params=True)
    image = noise(32, 32)
    return [
        dict(
            with_generator(steps, np.random.default_rng([seed, 7]))(image=image)[
                "applied_transforms"
            ]
        )
        for seed in range(DRAWS)
    ]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_ends_with_bytes_of_the_networks_size(name: str) -> None:
    for height, width in ((48, 48), (40, 57), (20, 16)):
        for seed in range(20):
            pixels = draw(name, noise(height, width), seed)
            assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_depends_on_its_generator_alone(name: str) -> None:
    image = noise(48, 48)
    drawn = [draw(name, image, seed) for seed in range(10)]
    np.random.seed(0)  # noqa: NPY002  the global generators have no say
    again = [draw(name, image, seed) for seed in range(10)]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({pixels.tobytes() for pixels in drawn}) > 1 or name == "none"


def test_none_is_resizing_alone() -> None:
    image = noise(48, 40)
    assert np.array_equal(
        draw("none", image, 0), cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    )


@pytest.mark.parametrize("name", PARTS)
def test_each_step_acts_as_often_as_it_says(name: str) -> None:
    counts = Counter(step for steps in applied(name) for step in steps)
    assert set(counts) == {*PARTS[name], "Resize"}
    assert counts["Resize"] == DRAWS
    for step, share in PARTS[name].items():
        assert abs(counts[step] - share * DRAWS) < 4 * (DRAWS * share * (1 - share)) ** 0.5, step


@pytest.mark.parametrize("name", PARTS)
def test_one_step_says_nothing_about_another(name: str) -> None:
    drawn = [
        (
            "HorizontalFlip" in steps,
            "RandomBrightnessContrast" in steps,
            "ImageCompression" in steps,
        )
        for steps in applied(name)
    ]
    assert np.abs(np.corrcoef(np.array(drawn, float).T) - np.eye(3)).max() < 4 / DRAWS**0.5


@pytest.mark.parametrize("name", PARTS)
def test_jpeg_keeps_to_its_range_of_quality(name: str) -> None:
    quality = [
        steps["ImageCompression"]["quality"]
        for steps in applied(name)
        if "ImageCompression" in steps
    ]
    assert min(quality) >= 40
    assert max(quality) <= 100
    assert max(quality) - min(quality) > 40


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_about_half_of_the_images_are_flipped(name: str) -> None:
    image = np.repeat(
        np.repeat(np.linspace(60, 200, 32).astype(np.uint8)[None, :, None], 32, 0), 3, 2
    )
    drawn = (draw(name, image, seed).astype(float) for seed in range(200))
    assert 70 < sum(pixels[:, :16].mean() > pixels[:, 16:].mean() for pixels in drawn) < 130


def test_rotation_leaves_no_black_corners() -> None:
    white = np.full((32, 32, 3), 230, np.uint8)
    assert min(int(draw("dfb", white, seed).min()) for seed in range(60)) > 150


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"data\.augment=heavy is unknown; choose one of light, none, flip, dfb, effort, ",
    ):
        build_transform("heavy", 24)
