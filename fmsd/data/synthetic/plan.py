"""The videos of the embedded dataset, and their frames."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple, cast

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fmsd.data.frame import REAL, Split
from fmsd.data.synthetic.faces import render
from fmsd.data.synthetic.forgeries import FORGERIES
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity, draw_movement, photograph

DRAWING_VERSION = 1
"""Raised whenever the pixels change. It is in the folder's name, so old copies are not reused."""

PLAN: dict[str, dict[Split, dict[str, int]]] = {
    "synthetic": {
        "train": {REAL: 180, "blend": 60, "upsample": 60, "relight": 60},
        "val": {REAL: 60, "blend": 20, "upsample": 20, "relight": 20},
        "test": {REAL: 60, "blend": 20, "upsample": 20, "relight": 20},
    },
    "synthetic_shift": {
        "test": {
            REAL: 100,
            "blend": 20,
            "upsample": 20,
            "relight": 20,
            "resample": 20,
            "inpaint": 20,
        },
    },
}
"""Videos per dataset, split and domain. No person appears in two splits."""

FRAMES = 4
"""Frames per video."""


class Clip(NamedTuple):
    """One video of the plan."""

    dataset: str
    split: Split
    domain: str
    name: str


def all_clips() -> Iterator[Clip]:
    """Every video of the embedded dataset, in a fixed order."""
    for dataset, splits in PLAN.items():
        for split, domains in splits.items():
            for domain, count in domains.items():
                yield from (
                    Clip(dataset, split, domain, f"{split}{number:03d}") for number in range(count)
                )


def seed_from(*parts: object) -> int:
    """A 32-bit seed that depends on the text of the arguments alone, on every machine."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def record_clip(clip: Clip, frames: int = FRAMES) -> Iterator[UInt8[ndarray, "height width 3"]]:
    """The frames of one video, RGB, before JPEG compression.

    Args:
        frames: their number; the first ones do not depend on it.
    """
    condition = CONDITIONS[clip.dataset]
    seed = seed_from(DRAWING_VERSION, *clip)
    rng = np.random.default_rng(seed)
    who = draw_identity(rng, condition)
    for index, pose in enumerate(draw_movement(rng, frames, condition)):
        scene = render(who, pose, seed, condition.clutter)
        camera, grain = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2, index])
        image = photograph(scene.image, camera, grain, condition)
        if clip.domain != REAL:
            tool = np.random.default_rng([seed, 3])
            image = FORGERIES[clip.domain](scene._replace(image=image), tool)
        yield (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def jpeg_quality(clip: Clip) -> int:
    """The JPEG quality of a video's frames, drawn independently of its label."""
    low, high = CONDITIONS[clip.dataset].jpeg
    return int(
        np.random.default_rng([seed_from(DRAWING_VERSION, *clip), 4]).integers(low, high + 1)
    )


def encode_jpeg(image: UInt8[ndarray, "height width 3"], quality: int) -> bytes:
    """JPEG bytes of an RGB image, without chroma subsampling."""
    flags = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, buffer = cv2.imencode(".jpg", image[..., ::-1], flags)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG image")
    return cast(bytes, buffer.tobytes())
