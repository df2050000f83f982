"""How face crops are made: the choices of `fmsd extract`, and the image files they are written to."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from fmsd.errors import InputError

Crop = UInt8[ndarray, "size size 3"]

UP = (
    (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else ()
)
"""Each row of a PNG as its difference from the one above, where OpenCV is new enough to be told."""

FORMATS = ("png", "jpg")
SAMPLING = ("spread", "first")
FACES = ("largest", "all")
CODING: dict[str, Callable[[int], tuple[int, ...]]] = {
    "png": lambda _: (
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
        *UP,
    ),
    "jpg": lambda quality: (
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ),
}
"""How OpenCV is asked to write a format. These settings of PNG take half the time of its level 1, at the same size."""

WORDS = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Recipe:
    """How crops are made.

    Args:
        frames: upper limit per video; None for all.
        sampling: `spread` evenly from its first to its last, or the `first` ones.
        size: side of a crop in pixels.
        margin: side of a crop as a multiple of the tight face's.
        align: bring eyes, nose and mouth to fixed places; otherwise only cut out the box.
        track: keep to one person within a video; otherwise take the largest face of each frame.
        faces: the person whose face is `largest` over the whole video, or `all`, each as a track of
            its own.
        min_face: pixels of the source; faces with a smaller side are reported; 0 reports none.
        keep_small: whether these are kept.
        keep_corrupt: whether frames are kept that the decoder gives with damage.
        format: `png`, or `jpg`.
        quality: of JPEG, from 1 to 100.
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
        """Refuses what cannot be made."""
        kinds: dict[str, tuple[type, ...]] = {"frames": (int, type(None)), "margin": (int, float)}
        kinds |= dict.fromkeys(("size", "quality", "min_face"), (int,))
        kinds |= dict.fromkeys(("align", "track", "keep_small", "keep_corrupt"), (bool,))
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                raise InputError(
                    f"{name}={value} is not {' or '.join(WORDS[one] for one in kind)}", "correct it"
                )
        wrong = {
            f"frames={self.frames} must be at least 1, or null for all": self.frames is not None
            and self.frames < 1,
            (
                f"sampling={self.sampling} is unknown; choose one of {', '.join(SAMPLING)}"
            ): self.sampling not in SAMPLING,
            f"size={self.size} must be at least 16 pixels": self.size < 16,
            f"faces={self.faces} is unknown; choose one of {', '.join(FACES)}": self.faces
            not in FACES,
            "faces=all follows people and cannot go with track=false": self.faces == "all"
            and not self.track,
            f"min_face={self.min_face} must be at least 0 pixels": self.min_face < 0,
            f"margin={self.margin} must be at least 1": self.margin < 1,
            f"format={self.format} is unknown; choose one of {', '.join(FORMATS)}": self.format
            not in FORMATS,
            f"quality={self.quality} must lie between 1 and 100": not 1 <= self.quality <= 100,
        }
        if found := [what for what, holds in wrong.items() if holds]:
            raise InputError("; ".join(found), "correct these keys")


def encoded(pixels: Crop, recipe: Recipe) -> bytes:
    """A crop as the bytes of an image file; JPEG without colour subsampling, which would blur traces in colour."""
    return cv2.imencode(
        f".{recipe.format}",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        CODING[recipe.format](recipe.quality),
    )[1].tobytes()
