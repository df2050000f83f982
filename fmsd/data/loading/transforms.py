"""Augmentations of training frames, by name.

Each is a function from the final resizing to the list of its steps, so that it determines whether
it works before or after resizing.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it checks for updates at import

import random
from collections.abc import Callable
from typing import Any

import albumentations as A  # noqa: N812
import cv2
import numpy as np

from fmsd.checks import check_choice
from fmsd.data.loading.resizing import resize

Steps = list[A.BasicTransform | A.BaseCompose]


class Square(A.Resize):
    """The resizing of validation and test frames, as a step of an augmentation."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Resizes the image."""
        return resize(img, self.height)


def light(resize: A.Resize) -> Steps:
    """Flip, brightness and contrast, JPEG, blur; mild enough for every detector."""
    return [
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(0.1, 0.1, p=0.3),
        A.ImageCompression(quality_range=(60, 100), p=0.3),
        A.GaussianBlur(sigma_limit=(0.1, 1.0), p=0.1),
        resize,
    ]


def none(resize: A.Resize) -> Steps:
    """Resizing alone."""
    return [resize]


def flip(resize: A.Resize) -> Steps:
    """Flip alone: the weak view of BiasConsist (Dinh et al., 2026)."""
    return [A.HorizontalFlip(p=0.5), resize]


def dfb(resize: A.Resize) -> Steps:
    """The augmentation of DeepfakeBench.

    Yan et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2307.01426.

    Theirs: flip, rotation by up to 10 degrees and blur with kernels of 3 to 7 pixels, each in half
    of the images; brightness and contrast by up to 0.1, FancyPCA or hue (20), saturation (30) and
    value (20) in half; JPEG of quality 40 to 100 in half, all at the network's size. Each detector
    there has its own file of settings: these are those of CLIP, EfficientNet-B4 and Effort;
    Xception's does not rotate. Differences: their resizing is cubic, ours that of testing; their
    blur's sigma follows its kernel (0.8, 1.1 or 1.4), ours is drawn from 0.8 to 1.4.
    """
    colour = [
        A.RandomBrightnessContrast(0.1, 0.1),
        A.FancyPCA(alpha=0.1),
        A.HueSaturationValue(20, 30, 20),
    ]
    return [
        resize,
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=10, border_mode=cv2.BORDER_REFLECT_101, p=0.5),
        A.GaussianBlur(blur_limit=(3, 7), sigma_limit=(0.8, 1.4), p=0.5),
        A.OneOf(colour, p=0.5),
        A.ImageCompression(quality_range=(40, 100), p=0.5),
    ]


def effort(resize: A.Resize) -> Steps:
    """The augmentation of Effort (Yan et al., ICML 2025, arXiv 2411.15633).

    Theirs, from its released data set class at the network's size; the `data_aug` settings beside
    it, which are DeepfakeBench's, are not read there: flip and brightness and contrast by up to 0.2
    (p=0.5 each); hue, saturation and value, gamma, GlassBlur (p=0.3 each); JPEG of quality 40 to
    100, Gaussian noise, motion blur, CLAHE, shuffled channels, holes (p=0.1 each). Differences:
    their resizing is cubic, ours that of testing; their eight holes have 8 pixels at a size of 224,
    ours that share of any size; their noise has a variance of 10 to 50, ours a standard deviation
    within the same bounds.
    """
    hole = (8 / 224, 8 / 224)
    return [
        resize,
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
        A.HueSaturationValue(20, 30, 20, p=0.3),
        A.ImageCompression(quality_range=(40, 100), p=0.1),
        A.GaussNoise(std_range=(10**0.5 / 255, 50**0.5 / 255), p=0.1),
        A.MotionBlur(blur_limit=(3, 7), p=0.1),
        A.CLAHE(clip_limit=(1, 4), tile_grid_size=(8, 8), p=0.1),
        A.ChannelShuffle(p=0.1),
        A.CoarseDropout(
            num_holes_range=(8, 8), hole_height_range=hole, hole_width_range=hole, fill=0, p=0.1
        ),
        A.RandomGamma(gamma_limit=(80, 120), p=0.3),
        A.GlassBlur(sigma=0.7, max_delta=4, iterations=2, p=0.3),
    ]


def sbi(resize: A.Resize) -> Steps:
    """The augmentation of self-blended images, for real frames and blends alike.

    Theirs (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376): flip and JPEG of quality 40 to 100
    (p=0.5 each); channels shifted by up to 20, and brightness and contrast by up to 0.3 (p=0.3
    each). Differences: a real frame and its blend are augmented independently; hue, saturation and
    value change by up to 5, 20 and 15, where their code has 0.3 of a grey level, which rounds to
    nothing.
    """
    return [
        A.HorizontalFlip(p=0.5),
        A.RGBShift(20, 20, 20, p=0.3),
        A.HueSaturationValue(5, 20, 15, p=0.3),
        A.RandomBrightnessContrast(0.3, 0.3, p=0.3),
        A.ImageCompression(quality_range=(40, 100), p=0.5),
        resize,
    ]


AUGMENTATIONS: dict[str, Callable[[A.Resize], Steps]] = {
    "light": light,
    "none": none,
    "flip": flip,
    "dfb": dfb,
    "effort": effort,
    "sbi": sbi,
}
"""The values of `data.augment` and `data.strong`."""


def build_transform(augment: str, size: int, key: str = "augment") -> A.Compose:
    """The named augmentation, with a final size of `size` x `size` pixels.

    Args:
        key: the setting below `data` that names it.

    Raises:
        InputError: an unknown name.
    """
    check_choice(f"data.{key}", augment, AUGMENTATIONS)
    return A.Compose(AUGMENTATIONS[augment](Square(size, size)))


def with_generator(steps: A.Compose, rng: np.random.Generator) -> A.Compose:
    """Sets the generator that all steps draw from, one after the other, and returns the steps.

    `set_random_seed` would give each step a generator of its own with the same seed: all steps
    would draw the same number to decide whether to act, and a flipped image would always be
    blurred, too.
    """
    steps.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return steps
