"""Reading one image file as RGB bytes, whatever it is stored as; nothing is ever replaced by something else."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmsd.types import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""File endings that count as images, in lower case."""


def is_image(path: Path) -> bool:
    """Whether a file's ending is that of an image; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def in_order(files: Iterable[str]) -> list[str]:
    """File names with their numbers compared as numbers: 2.png before 10.png, 999.png before 1000.png."""
    return sorted(files, key=lambda name: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)])


def read_image(path: str | Path) -> UInt8[ndarray, "height width 3"]:
    """RGB pixels: grey and palette images are expanded, CMYK converted, 16 bits scaled to 8, transparency dropped, EXIF rotation applied.

    Raises:
        InputError: a missing, truncated or damaged file.
    """
    try:
        with Image.open(path) as stored:
            image = ImageOps.exif_transpose(stored)
            if image.mode.startswith(("I", "F")):
                return _deep(np.asarray(image), path)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The image {path} cannot be read ({error}); restore it from its source or leave it out of the dataset.") from error


def _deep(values: ndarray, path: str | Path) -> UInt8[ndarray, "height width 3"]:
    """16-bit grey levels as 8-bit RGB."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise InputError(f"The image {path} has {values.dtype} pixels beyond 16 bits; store it with 8 or 16 bits per channel.")
    return np.repeat((values.astype(np.uint32) // 257).astype(np.uint8)[..., None], 3, axis=2)
