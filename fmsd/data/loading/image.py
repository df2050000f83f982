"""Reading an image as RGB bytes, from a file or a tar; an error is raised, never a substitute read.

Pillow decides what an image is and what is an error. Plain JPEG files take a faster
decoder that gives the same pixels; whatever that refuses, and every file with metadata that may
change its pixels, goes to Pillow.
"""

import functools
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from fmsd.data.mirror import open_remote
from fmsd.errors import InputError, reason

JPEG_SUFFIXES = ".jpg .jpeg .jpe .jfif .mpo .jp2 .j2k .j2c .jpc .jpf .jpx"
OTHER_SUFFIXES = (
    ".png .apng .webp .avif .tif .tiff .bmp .dib .tga .pcx .sgi .qoi .ppm .pgm .pbm .pnm"
)

SUFFIXES = frozenset(f"{JPEG_SUFFIXES} {OTHER_SUFFIXES}".split())
"""Suffixes that count as images, in lower case: those that Pillow decodes and datasets use."""

UNDECODED_IMAGE_SUFFIXES = (
    ".heic .heif .hif .avifs .jxl .jxr .hdp .wdp .bpg .flif .exr .pfm .psd .psb .xcf"
)
RAW_SUFFIXES = ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .3fr .iiq"

UNSUPPORTED_SUFFIXES = frozenset(f"{UNDECODED_IMAGE_SUFFIXES} {RAW_SUFFIXES}".split())
"""Suffixes of images that are not decoded, in lower case, raw files of cameras among them."""

FORMATS = (
    "JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "TGA", "PCX", "SGI", "QOI",
    "PPM", "GIF",
)  # fmt: skip
"""Pillow's names of the formats that are decoded, whatever a file's suffix is.

Pillow has decoders of rarer formats, too, some of which start other programs.
"""

MAX_PIXELS = 64 * 10**6
"""Most pixels of an image or of a frame of a video; one of 8K video has 33 million.

Pillow warns of some more (`Image.MAX_IMAGE_PIXELS`); such an image is refused here in any case.
"""

TAR_MEMBER = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")
"""The place of a member of a tar: TAR#OFFSET+SIZE, in bytes."""

PLAIN_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE} - {0xE1})
"""Segments of a JPEG that do not change its pixels.

APP1 is not among them, as its EXIF or XMP may rotate the image.
"""


def natural_sort(files: Iterable[str]) -> list[str]:
    """File names sorted with their numbers as numbers: 2.png before 10.png."""
    return sorted(
        files,
        key=lambda name: [
            (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
        ],
    )


def read_image(place: str | Path) -> UInt8[ndarray, "height width 3"]:
    """The RGB pixels of an image.

    Grey and palette images are expanded, CMYK is converted, 16 bits are scaled to 8, transparency
    is dropped, and EXIF rotation applied.

    Args:
        place: a file, or `TAR#OFFSET+SIZE` for one that `fmsd pack` put into a tar.

    Raises:
        InputError: a missing, truncated or damaged file, or one of more than `MAX_PIXELS` pixels.
    """
    return decode(read_bytes(place), place)


def read_bytes(place: str | Path) -> bytes:
    """The stored bytes of an image.

    Raises:
        InputError: a missing file, a tar that ends before the image does, or one at an address that
            cannot be fetched.
    """
    member = parse_tar_member(str(place))
    try:
        if member is None:
            with io.FileIO(place) as file:
                return file.read()
        tar, offset, size = member
        remote = open_remote(tar)
        file = remote or _open_tar(tar)  # held, as another thread may evict it from the cache
        data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise _unreadable(place, error) from error
    if len(data) < size:
        raise _unreadable(place, "the tar ends before it")
    return data


def parse_tar_member(place: str) -> tuple[str, int, int] | None:
    """Tar, offset and size of an image that `fmsd pack` put into a tar; None for a plain file."""
    match = TAR_MEMBER.fullmatch(place) if ".tar#" in place else None
    return None if match is None else (match[1], int(match[2]), int(match[3]))


@functools.lru_cache(maxsize=256)
def _open_tar(tar: str) -> io.FileIO:
    """A tar that is open for `os.pread`.

    Such reads use no file position, so forked processes may share it. The size of the cache limits
    the number of open files.
    """
    return io.FileIO(tar)


def decode(data: bytes, name: str | Path) -> UInt8[ndarray, "height width 3"]:
    """The RGB pixels of an image's bytes, see `read_image`.

    Args:
        name: the name of the image in an error.

    Raises:
        InputError: truncated or damaged bytes.
    """
    try:
        if _plain_jpeg(data):
            return simplejpeg.decode_jpeg(data)
    except (ValueError, KeyError):  # KeyError: a rare subsampling
        pass  # Pillow reads it, or reports why it cannot be read
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as stored:
            if not _affordable(stored.height, stored.width):
                raise _too_large(name, f"{stored.width} x {stored.height}")
            image = ImageOps.exif_transpose(stored)
            if image.mode.startswith(("I", "F")):
                return _scale_16_bits(np.asarray(image), name)
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise _unreadable(name, "it is not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, "far too many") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise _unreadable(name, reason(error)) from error


def _plain_jpeg(data: bytes) -> bool:
    """Whether simplejpeg and Pillow agree on this JPEG: nothing rotates it, and it is not CMYK."""
    if not data.startswith(b"\xff\xd8"):
        return False
    place = 2
    while data[place : place + 2] != b"\xff\xda":  # start of the pixels
        if len(data) < place + 4 or data[place] != 0xFF or data[place + 1] not in PLAIN_SEGMENTS:
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return colours in ("YCbCr", "Gray", "RGB") and _affordable(int(height), int(width))


def _affordable(height: int, width: int) -> bool:
    return height * width <= MAX_PIXELS


def _too_large(name: str | Path, size: str) -> InputError:
    return InputError(
        f"The image {name} has {size} pixels, and at most {MAX_PIXELS // 10**6} million are read: "
        "a few bytes can stand for pixels that fill the memory",
        "scale it down, or leave it out of the dataset",
    )


def _unreadable(place: str | Path, why: object) -> InputError:
    return InputError(
        f"The image {place} cannot be read ({why})",
        "restore it from its source or leave it out of the dataset",
    )


def _scale_16_bits(values: ndarray, name: str | Path) -> UInt8[ndarray, "height width 3"]:
    """16-bit grey levels as 8-bit RGB.

    Raises:
        InputError: other values than those of 16 bits.
    """
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"The image {name} has {values.dtype} pixels beyond 16 bits",
            "store it with 8 or 16 bits per channel",
        )
    return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)
