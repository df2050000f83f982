"""Corruptions of images in five severities, to measure the robustness of a detector.

Levels follow Jiang et al., "DeeperForensics-1.0: A Large-Scale Dataset for Real-World Face Forgery
Detection", CVPR 2020, arXiv 2001.03024, with the formulas of its published code, and Hendrycks and
Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, arXiv 1903.12261 (ImageNet-C). A frame's random numbers depend on its path in the dataset
alone and are the same for all severities, so a higher severity is more of the same.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from jaxtyping import UInt8
from numpy import ndarray
from numpy.random import Generator
from PIL import Image

from fmsd.errors import InputError

STRENGTHS: Mapping[str, tuple[Any, ...]] = {
    # quality (ImageNet-C)
    "jpeg": (25, 18, 15, 10, 7),
    # CRF (DeeperForensics-1.0)
    "h264": (30, 32, 35, 38, 40),
    # variance in Y, Cb and Cr (DeeperForensics-1.0)
    "noise": (0.001, 0.002, 0.005, 0.01, 0.05),
    # kernel in pixels, sigma a sixth of it (DeeperForensics-1.0)
    "blur": (7, 9, 13, 17, 21),
    # divisor of both sides (DeeperForensics-1.0, which calls it JPEG)
    "resize": (2, 3, 4, 5, 6),
    # added to the value of HSV (ImageNet-C)
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    # factor of every pixel (DeeperForensics-1.0)
    "contrast": (0.85, 0.725, 0.6, 0.475, 0.35),
    # factor of Cb and Cr (DeeperForensics-1.0)
    "saturation": (0.4, 0.3, 0.2, 0.1, 0.0),
    # number of grey blocks of 8 pixels for a side of 256 pixels (DeeperForensics-1.0)
    "blockwise": (16, 32, 48, 64, 80),
    # factor of both sides (ImageNet-C)
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    # size, quality, CRF (our choice)
    "social": ((0.9, 80, 24), (0.75, 70, 27), (0.6, 60, 30), (0.5, 50, 33), (0.4, 40, 36)),
}
"""The parameter of every corruption at severity 1 to 5."""

NAMES, SEVERITIES = tuple(STRENGTHS), (1, 2, 3, 4, 5)

Pixels = UInt8[ndarray, "height width 3"]


class Corruption(NamedTuple):
    """A corruption and its severity, 1 to 5."""

    name: str
    severity: int


def corrupt(image: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Corrupts an image, whose size stays; equal arguments give equal pixels.

    Args:
        severity: 1 to 5.
        seed: seed of the frame, see `frame_seed`; equal for all severities.

    Raises:
        InputError: an unknown corruption or severity.
    """
    check_corruption(name, severity)
    return FUNCTIONS[name](
        image, STRENGTHS[name][severity - 1], np.random.default_rng([seed, *name.encode()])
    )


def frame_seed(path: str) -> int:
    """The seed of a frame, which depends on its path in the manifest alone."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")


def check_corruption(name: object, severity: object) -> None:
    """Checks that a corruption and a severity exist.

    Raises:
        InputError: an unknown corruption or severity.
    """
    if name not in NAMES:
        raise InputError(f"There is no corruption {name!r}", f"choose among {', '.join(NAMES)}")
    if severity not in SEVERITIES or type(severity) is not int:
        raise InputError(
            f"There is no severity {severity!r}", f"choose among {', '.join(map(str, SEVERITIES))}"
        )


def parse_corruptions(names: Any, severities: Any) -> list[Corruption]:
    """Parses `corrupt=` and `severities=` into every named corruption at every severity.

    Args:
        names: `all`, a name or a list of names; None for no corruption.
        severities: a severity or a list of them.

    Raises:
        InputError: an unknown corruption or severity, one that is repeated, or an empty list.
    """
    if names is None:
        if severities != list(SEVERITIES):
            raise InputError(
                f"severities={severities} means nothing without a corruption",
                "give corrupt=all or corrupt='[NAME, ...]', too",
            )
        return []
    requested = {
        "corrupt": list(NAMES) if names == "all" else names if isinstance(names, list) else [names],
        "severities": severities if isinstance(severities, list) else [severities],
    }
    for key, values in requested.items():
        if not values or any(values.count(value) > 1 for value in values):
            raise InputError(
                f"{key}={values} {'repeats something' if values else 'is empty'}",
                "name each of them once",
            )
    corruptions = [
        Corruption(name, severity)
        for name in requested["corrupt"]
        for severity in requested["severities"]
    ]
    for corruption in corruptions:
        check_corruption(*corruption)
    return corruptions


def jpeg(image: Pixels, quality: int, rng: Generator) -> Pixels:
    """Compression by Pillow."""
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=quality)
    return np.array(Image.open(stored))


def h264(image: Pixels, crf: int, rng: Generator) -> Pixels:
    """The key frame of a video of the image by libx264 with its default preset.

    Odd sides are padded for it.
    """
    height, width, _ = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        encoder = av.CodecContext.create("libx264", "w")
        decoder = av.CodecContext.create("h264", "r")
    except UnknownCodecError as error:
        raise InputError(
            "This build of PyAV cannot encode H.264",
            "install it from PyPI with pip install --force-reinstall av",
        ) from error
    encoder.height, encoder.width = even.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"crf": str(crf)}
    encoder.thread_count = decoder.thread_count = 1
    packets = [
        *encoder.encode(av.VideoFrame.from_ndarray(even, format="rgb24")),
        *encoder.encode(None),
    ]
    (frame,) = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    return frame.to_ndarray(format="rgb24")[:height, :width]


def noise(image: Pixels, variance: float, rng: Generator) -> Pixels:
    """White Gaussian noise in all three components of studio-swing YCbCr."""
    swing = np.array([219, 224, 224], np.float32) / 255  # Cr before Cb makes no difference here
    components = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    components += (
        np.sqrt(np.float32(variance)) / swing * rng.standard_normal(image.shape, np.float32)
    )
    return to_bytes(cv2.cvtColor(components, cv2.COLOR_YCrCb2RGB))


def blur(image: Pixels, kernel: int, rng: Generator) -> Pixels:
    """Gaussian blur."""
    return cv2.GaussianBlur(image, (kernel, kernel), kernel / 6)


def downscale(image: Pixels, divisor: int, rng: Generator) -> Pixels:
    """Downscaling and upscaling, both by linear interpolation."""
    return rescale(rescale(image, 1 / divisor, cv2.INTER_LINEAR), image.shape, cv2.INTER_LINEAR)


def brightness(image: Pixels, added: float, rng: Generator) -> Pixels:
    """Addition to the value of HSV."""
    components = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    components[..., 2] = np.minimum(components[..., 2] + added, 1)
    return to_bytes(cv2.cvtColor(components, cv2.COLOR_HSV2RGB))


def contrast(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """Multiplication of all pixels, towards black."""
    return to_bytes(image.astype(np.float32) / 255 * factor)


def saturation(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """Desaturation at constant luma."""
    components = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    components[..., 1:] = 0.5 + (components[..., 1:] - 0.5) * factor
    return to_bytes(cv2.cvtColor(components, cv2.COLOR_YCrCb2RGB))


def blockwise(image: Pixels, count: int, rng: Generator) -> Pixels:
    """Grey blocks at random places, their number in proportion to the shorter side.

    A higher severity adds blocks to those of a lower one.
    """
    height, width, _ = image.shape
    result = image.copy()
    for down, right in rng.random((max(1, round(count * min(height, width) / 256)), 2)):
        top, left = int(down * max(1, height - 7)), int(right * max(1, width - 7))
        result[top : top + 8, left : left + 8] = 128
    return result


def pixelate(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """Downscaling and upscaling, both by box filters: visible squares."""
    height, width, _ = image.shape
    small = Image.fromarray(image).resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX
    )
    return np.array(small.resize((width, height), Image.Resampling.BOX))


def social(image: Pixels, levels: tuple[float, int, int], rng: Generator) -> Pixels:
    """A social network: downscaling, JPEG, H.264, and upscaling to the first size."""
    size, quality, crf = levels
    small = rescale(image, size, cv2.INTER_AREA)
    return rescale(h264(jpeg(small, quality, rng), crf, rng), image.shape, cv2.INTER_LINEAR)


def rescale(
    image: UInt8[ndarray, "_ _ 3"], to: float | tuple[int, ...], interpolation: int
) -> UInt8[ndarray, "_ _ 3"]:
    """The image at a fraction of its size, or with the height and width of a shape.

    Args:
        to: a factor of both sides, which stay at least 1 pixel, or (height, width, ...).
    """
    if isinstance(to, tuple):
        height, width = to[:2]
    else:
        height, width = max(1, int(image.shape[0] * to)), max(1, int(image.shape[1] * to))
    return cv2.resize(image, (width, height), interpolation=interpolation)


def to_bytes(values: ndarray) -> Pixels:
    """Values in [0, 1] as bytes; others are clipped."""
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


FUNCTIONS: Mapping[str, Callable[[Pixels, Any, Generator], Pixels]] = {
    "jpeg": jpeg,
    "h264": h264,
    "noise": noise,
    "blur": blur,
    "resize": downscale,
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "blockwise": blockwise,
    "pixelate": pixelate,
    "social": social,
}
"""The function of every corruption."""
