"""The choices of `fmsd extract`, and the encoding of crops as image files."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from fmsd.data.loading.image import decode
from fmsd.errors import InputError

Crop = UInt8[ndarray, "size size 3"]

PNG_FILTER_UP = (
    (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else ()
)
"""Filters each row of a PNG by the one above, where OpenCV is new enough to offer the option."""

FORMATS = ("png", "jpg")
SAMPLING = ("spread", "first")
FACES = ("largest", "all")
IMWRITE_PARAMS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "png": lambda _: (
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
        *PNG_FILTER_UP,
    ),
    "jpg": lambda quality: (
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ),
}
"""Parameters of `cv2.imencode` by quality. PNG takes half the time of its level 1 at equal size.

JPEG has no chroma subsampling, which would blur traces of forgery in colour.
"""

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Recipe:
    """The choices of an extraction.

    Args:
        frames: upper limit per video; None for all.
        sampling: frames are `spread` evenly from the first to the last, or the `first` ones.
        size: side of a crop in pixels.
        margin: side of a crop as a multiple of the tight face's.
        align: align eyes, nose and mouth to fixed places; otherwise only cut out the box.
        track: follow one person within a video; otherwise take the largest face of each frame.
        faces: the person whose face is `largest` over the whole video, or `all`, each as a track of
            its own.
        min_face: faces with a side below this number of stored pixels are reported; 0 reports none.
        keep_small: keep these faces.
        keep_corrupt: keep frames that the decoder returns with damage.
        format: `png` or `jpg`.
        quality: JPEG quality, from 1 to 100.

    Raises:
        InputError: a value of the wrong type or out of range.
    """

    frames: int | None = 32
    sampling: str = "spread"
    size: int = 256
    margin: float = 1.3
    align: bool = True
    track: bool = True
    faces: str = "largest"
    min_face: int = 50  # WIDER FACE (Yang et al., 2016) calls faces of 10 to 50 pixels small
    keep_small: bool = True
    keep_corrupt: bool = False
    format: str = "png"
    quality: int = 95

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        types: dict[str, tuple[type, ...]] = {"frames": (int, type(None)), "margin": (int, float)}
        types |= dict.fromkeys(("size", "quality", "min_face"), (int,))
        types |= dict.fromkeys(("align", "track", "keep_small", "keep_corrupt"), (bool,))
        for name, allowed in types.items():
            value = getattr(self, name)
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise InputError(
                    f"{name}={value} is not {' or '.join(TYPE_NAMES[one] for one in allowed)}",
                    "correct it",
                )
        requirements = (
            (
                self.frames is None or self.frames >= 1,
                f"frames={self.frames} must be at least 1, or null for all",
            ),
            _one_of("sampling", self.sampling, SAMPLING),
            (self.size >= 16, f"size={self.size} must be at least 16 pixels"),
            _one_of("faces", self.faces, FACES),
            (
                self.track or self.faces != "all",
                "faces=all follows people and cannot be combined with track=false",
            ),
            (self.min_face >= 0, f"min_face={self.min_face} must be at least 0 pixels"),
            (self.margin >= 1, f"margin={self.margin} must be at least 1"),
            _one_of("format", self.format, FORMATS),
            (1 <= self.quality <= 100, f"quality={self.quality} must lie between 1 and 100"),
        )
        if broken := [message for holds, message in requirements if not holds]:
            raise InputError("; ".join(broken), "correct these keys")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> tuple[bool, str]:
    """Whether a value is among its choices, and the message where it is not."""
    return value in choices, f"{name}={value} is unknown; choose one of {', '.join(choices)}"


def encode_crop(pixels: Crop, suffix: str, quality: int) -> bytes:
    """A crop as the bytes of an image file.

    Args:
        suffix, quality: `format` and `quality` of a `Recipe`.
    """
    return cv2.imencode(
        f".{suffix}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), IMWRITE_PARAMS[suffix](quality)
    )[1].tobytes()


def as_extracted(pixels: Crop, suffix: str, quality: int) -> Crop:
    """The pixels of a crop as they are read from its file: JPEG changes them.

    Args:
        suffix, quality: see `encode_crop`.
    """
    if suffix == "png":
        return pixels
    return decode(encode_crop(pixels, suffix, quality), f"crop.{suffix}")
