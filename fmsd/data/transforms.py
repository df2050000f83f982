"""What happens to an image before the network: resizing always, augmentation in training by name."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for news at import

import albumentations as A  # noqa: N812
import cv2

from fmsd.types import InputError

cv2.setNumThreads(0)  # one image is too small to share; loader processes are the parallelism

AUGMENTATIONS = ("light", "none")


def transform(augment: str, size: int) -> A.Compose:
    """Resizes to `size` x `size` pixels after the named augmentation.

    Args:
        augment: `none`, or `light` (flip, brightness and contrast, JPEG, blur).

    Raises:
        InputError: an unknown name.
    """
    steps: dict[str, list[A.BasicTransform]] = {
        "none": [],
        "light": [
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(0.1, 0.1, p=0.3),
            A.ImageCompression(quality_range=(60, 100), p=0.3),
            A.GaussianBlur(sigma_limit=(0.1, 1.0), p=0.1),
        ],
    }
    if augment not in steps:
        raise InputError(f"data.augment={augment} is unknown; choose one of {', '.join(AUGMENTATIONS)}.")
    return A.Compose([*steps[augment], A.Resize(size, size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")])
