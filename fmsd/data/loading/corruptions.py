"""What happens to images on their way to a viewer, in five severities, to measure what a detector's scores survive.

Levels follow Jiang et al., "DeeperForensics-1.0: A Large-Scale Dataset for Real-World Face Forgery
Detection", CVPR 2020, arXiv 2001.03024, with the formulas of its published code, and Hendrycks and
Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, arXiv 1903.12261 (ImageNet-C). A frame's random numbers follow from its place in the dataset
alone and serve all severities, so a severer corruption is more of the same.
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

LEVELS: Mapping[str, tuple[Any, ...]] = {
    # severity     1       2       3       4       5
    "jpeg":       (25,     18,     15,     10,     7),      # quality; ImageNet-C
    "h264":       (30,     32,     35,     38,     40),     # CRF; DeeperForensics-1.0
    # variance in Y, Cb, Cr; DeeperForensics-1.0
    "noise":      (0.001,  0.002,  0.005,  0.01,   0.05),
    # kernel in pixels, sigma a sixth of it; DeeperForensics-1.0
    "blur":       (7,      9,      13,     17,     21),
    # divides both sides; DeeperForensics-1.0, whose name for it is JPEG
    "resize":     (2,      3,      4,      5,      6),
    "brightness": (0.1,    0.2,    0.3,    0.4,    0.5),    # added to the value of HSV; ImageNet-C
    # multiplies every pixel; DeeperForensics-1.0
    "contrast":   (0.85,   0.725,  0.6,    0.475,  0.35),
    # multiplies Cb and Cr; DeeperForensics-1.0
    "saturation": (0.4,    0.3,    0.2,    0.1,    0.0),
    # grey blocks of 8 pixels at 256 pixels; DeeperForensics-1.0
    "blockwise":  (16,     32,     48,     64,     80),
    "pixelate":   (0.6,    0.5,    0.4,    0.3,    0.25),   # multiplies both sides; ImageNet-C
    # size, quality, CRF; our reading
    "social":     ((0.9, 80, 24), (0.75, 70, 27), (0.6, 60, 30), (0.5, 50, 33), (0.4, 40, 36)),
}  # fmt: skip
"""The parameter of every corruption at severity 1 to 5."""

NAMES, SEVERITIES = tuple(LEVELS), (1, 2, 3, 4, 5)

Pixels = UInt8[ndarray, "height width 3"]


class Corruption(NamedTuple):
    """A corruption and its severity, 1 to 5."""

    name: str
    severity: int


def corrupt(image: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """The image under a corruption, of the same size; equal arguments give equal pixels.

    Args:
        severity: 1 to 5.
        seed: of the frame, see `frame_seed`; equal for all severities.

    Raises:
        InputError: an unknown corruption or severity.
    """
    check_corruption(name, severity)
    return FUNCTIONS[name](
        image, LEVELS[name][severity - 1], np.random.default_rng([seed, *name.encode()])
    )


def frame_seed(path: str) -> int:
    """The seed of a frame, from its path in the manifest: the same whatever other frames there are."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")


def check_corruption(name: object, severity: object) -> None:
    """Refuses what is not in the table.

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
    """Every named corruption at every severity, as the command line gives them.

    Args:
        names: `all`, a name or a list of names; None for no corruption.
        severities: a severity or a list of them.

    Raises:
        InputError: an unknown corruption or severity, one given twice, or none.
    """
    if names is None:
        if severities != list(SEVERITIES):
            raise InputError(
                f"severities={severities} means nothing without a corruption",
                "give corrupt=all or corrupt='[NAME, ...]', too",
            )
        return []
    wanted = {
        "corrupt": list(NAMES) if names == "all" else names if isinstance(names, list) else [names],
        "severities": severities if isinstance(severities, list) else [severities],
    }
    for key, values in wanted.items():
        if not values or any(values.count(value) > 1 for value in values):
            raise InputError(
                f"{key}={values} {'repeats something' if values else 'is empty'}",
                "name each that is wanted once",
            )
    found = [
        Corruption(name, severity)
        for name in wanted["corrupt"]
        for severity in wanted["severities"]
    ]
    for corruption in found:
        check_corruption(*corruption)
    return found


def jpeg(image: Pixels, quality: int, rng: Generator) -> Pixels:
    """Compression by Pillow."""
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=quality)
    return np.array(Image.open(stored))


def h264(image: Pixels, crf: int, rng: Generator) -> Pixels:
    """The key frame of a video that FFmpeg makes of the image by libx264 with its default preset; odd sides are padded for it."""
    height, width, _ = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        encoder, decoder = (
            av.CodecContext.create("libx264", "w"),
            av.CodecContext.create("h264", "r"),
        )
    except UnknownCodecError as error:
        raise InputError(
            "This build of PyAV cannot encode H.264",
            "install it from PyPI with pip install --force-reinstall av",
        ) from error
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = (
        *even.shape[:2],
        "yuv420p",
        Fraction(1, 25),
    )
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
    """Smaller and back, both by linear interpolation."""
    return rescale(rescale(image, 1 / divisor, cv2.INTER_LINEAR), image.shape, cv2.INTER_LINEAR)


def brightness(image: Pixels, added: float, rng: Generator) -> Pixels:
    """A higher value in HSV."""
    components = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    components[..., 2] = np.minimum(components[..., 2] + added, 1)
    return to_bytes(cv2.cvtColor(components, cv2.COLOR_HSV2RGB))


def contrast(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """A smaller range of values, towards black."""
    return to_bytes(image.astype(np.float32) / 255 * factor)


def saturation(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """Paler colours of the same luma, up to grey."""
    components = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    components[..., 1:] = 0.5 + (components[..., 1:] - 0.5) * factor
    return to_bytes(cv2.cvtColor(components, cv2.COLOR_YCrCb2RGB))


def blockwise(image: Pixels, count: int, rng: Generator) -> Pixels:
    """Grey blocks at random places, in proportion to the shorter side; a severer corruption adds to those of a milder one."""
    height, width, _ = image.shape
    result = image.copy()
    for down, right in rng.random((max(1, round(count * min(height, width) / 256)), 2)):
        top, left = int(down * max(1, height - 7)), int(right * max(1, width - 7))
        result[top : top + 8, left : left + 8] = 128
    return result


def pixelate(image: Pixels, factor: float, rng: Generator) -> Pixels:
    """Smaller and back, both by box filters: visible squares."""
    height, width, _ = image.shape
    small = Image.fromarray(image).resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX
    )
    return np.array(small.resize((width, height), Image.Resampling.BOX))


def social(image: Pixels, levels: tuple[float, int, int], rng: Generator) -> Pixels:
    """Sent on through a social network: made smaller, compressed as JPEG, then as H.264, and shown at the first size again."""
    size, quality, crf = levels
    small = rescale(image, size, cv2.INTER_AREA)
    return rescale(h264(jpeg(small, quality, rng), crf, rng), image.shape, cv2.INTER_LINEAR)


def rescale(
    image: UInt8[ndarray, "_ _ 3"], to: float | tuple[int, ...], interpolation: int
) -> UInt8[ndarray, "_ _ 3"]:
    """The image at a fraction of its size, at least a pixel, or with the height and width of a shape."""
    height, width = (
        to[:2] if isinstance(to, tuple) else (max(1, int(side * to)) for side in image.shape[:2])
    )
    return cv2.resize(image, (width, height), interpolation=interpolation)


def to_bytes(values: ndarray) -> Pixels:
    """Values from 0 to 1 as bytes; what lies beyond is cut off."""
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


FUNCTIONS: Mapping[str, Callable[[Pixels, Any, Generator], Pixels]] = {
    function.__name__: function
    for function in (
        jpeg,
        h264,
        noise,
        blur,
        downscale,
        brightness,
        contrast,
        saturation,
        blockwise,
        pixelate,
        social,
    )
}
"""What carries out each corruption."""
