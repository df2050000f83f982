"""Reading one image as RGB bytes, whatever it is stored as and wherever it lies; nothing is ever replaced by something else.

Pillow says what an image is and what is an error. Plain JPEG and PNG files take a faster decoder
that gives the same pixels; whatever that refuses, and every file that says anything about itself
beyond its pixels, goes to Pillow.
"""

import functools
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmsd.errors import InputError

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(
            ".png",
            ".apng",
            ".webp",
            ".avif",
            ".tif",
            ".tiff",
            ".bmp",
            ".dib",
            ".tga",
            ".pcx",
            ".sgi",
            ".qoi",
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""File endings that count as images, in lower case: what Pillow decodes and datasets of photographs use."""

UNSUPPORTED_SUFFIXES = frozenset(
    {
        *(
            ".heic",
            ".heif",
            ".hif",
            ".avifs",
            ".jxl",
            ".jxr",
            ".hdp",
            ".wdp",
            ".bpg",
            ".flif",
            ".exr",
            ".pfm",
            ".psd",
            ".psb",
            ".xcf",
        ),
        *(
            ".dng",
            ".cr2",
            ".cr3",
            ".crw",
            ".nef",
            ".nrw",
            ".arw",
            ".srf",
            ".sr2",
            ".orf",
            ".rw2",
            ".raf",
            ".pef",
            ".srw",
            ".3fr",
            ".iiq",
        ),
    }
)
"""Endings of images that are not decoded, in lower case; the second row are raw files of cameras."""

TAR_MEMBER = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")
"""The place of an image inside a tar: TAR#OFFSET+SIZE, in bytes."""

PLAIN_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE} - {0xE1})
"""Segments before the pixels of a JPEG, but for APP1, whose EXIF or XMP may say that the image is turned."""


def natural_sort(files: Iterable[str]) -> list[str]:
    """File names with their numbers compared as numbers: 2.png before 10.png, 999.png before 1000.png."""
    return sorted(
        files,
        key=lambda name: [
            (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
        ],
    )


def read_image(place: str | Path) -> UInt8[ndarray, "height width 3"]:
    """RGB pixels: grey and palette images are expanded, CMYK converted, 16 bits scaled to 8, transparency dropped, EXIF rotation applied.

    Args:
        place: a file, or `TAR#OFFSET+SIZE` for one that `fmsd pack` put into a tar.

    Raises:
        InputError: a missing, truncated or damaged file.
    """
    return decode(read_bytes(place), place)


def read_bytes(place: str | Path) -> bytes:
    """The bytes of an image as they are stored.

    Raises:
        InputError: a missing file, or a tar that ends before them.
    """
    inside = parse_tar_member(str(place))
    try:
        if inside is None:
            with io.FileIO(place) as file:
                return file.read()
        tar, offset, size = inside
        file = _opened(tar)  # held while it is read: another thread may make the cache forget it
        data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise _unreadable(place, error) from error
    if len(data) < size:
        raise _unreadable(place, "the tar ends before it")
    return data


def parse_tar_member(place: str) -> tuple[str, int, int] | None:
    """Tar, offset and size of an image that `fmsd pack` put into a tar; None for a file of its own."""
    found = TAR_MEMBER.fullmatch(place) if ".tar#" in place else None
    return None if found is None else (found[1], int(found[2]), int(found[3]))


@functools.lru_cache(maxsize=256)
def _opened(tar: str) -> io.FileIO:
    """A tar, open for `os.pread`, which leaves no position behind: processes forked later may share it. The cache's limit is that of open files."""
    return io.FileIO(tar)


def decode(data: bytes, name: str | Path) -> UInt8[ndarray, "height width 3"]:
    """The pixels of an image's bytes, see `read_image`.

    Args:
        name: what to call it in an error.

    Raises:
        InputError: truncated or damaged bytes.
    """
    try:
        if _plain_jpeg(data):
            return simplejpeg.decode_jpeg(data)
    except (ValueError, KeyError):  # a KeyError is a rare subsampling
        pass  # Pillow reads it, or knows why it cannot be read
    try:
        with Image.open(io.BytesIO(data)) as stored:
            image = ImageOps.exif_transpose(stored)
            if image.mode.startswith(("I", "F")):
                return _deep(np.asarray(image), name)
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise _unreadable(name, "it is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from error


def resize(image: UInt8[ndarray, "height width 3"], size: int) -> UInt8[ndarray, "{size} {size} 3"]:
    """An image of `size` x `size` pixels: areas are averaged along a side that shrinks, neighbours interpolated along one that grows."""
    height, width, _ = image.shape
    if height == width == size:
        return image
    if (
        min(height, width) < size < max(height, width)
    ):  # OpenCV averages no areas where the other side grows
        image = cv2.resize(
            image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA
        )
    return cv2.resize(
        image,
        (size, size),
        interpolation=cv2.INTER_AREA if size < max(image.shape[:2]) else cv2.INTER_LINEAR,
    )


def _plain_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG of a sane size that nothing turns, and no CMYK, which Pillow converts otherwise."""
    if not data.startswith(b"\xff\xd8"):
        return False
    place = 2
    while data[place : place + 2] != b"\xff\xda":  # the pixels begin
        if len(data) < place + 4 or data[place] != 0xFF or data[place + 1] not in PLAIN_SEGMENTS:
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return colours in ("YCbCr", "Gray", "RGB") and _sane(int(height), int(width))


def _sane(height: int, width: int) -> bool:
    """Whether Pillow would not suspect a bomb."""
    return Image.MAX_IMAGE_PIXELS is None or height * width <= Image.MAX_IMAGE_PIXELS


def _unreadable(place: str | Path, why: object) -> InputError:
    return InputError(
        f"The image {place} cannot be read ({why})",
        "restore it from its source or leave it out of the dataset",
    )


def _deep(values: ndarray, name: str | Path) -> UInt8[ndarray, "height width 3"]:
    """16-bit grey levels as 8-bit RGB."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"The image {name} has {values.dtype} pixels beyond 16 bits",
            "store it with 8 or 16 bits per channel",
        )
    return np.repeat((values.astype(np.uint32) // 257).astype(np.uint8)[..., None], 3, axis=2)
