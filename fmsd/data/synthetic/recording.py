"""Recording conditions of a dataset: its cameras, framing, people and compression."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.random import Generator

from fmsd.data.synthetic.faces import TRAIT_FLAGS, TRAITS, Identity, Image, Pose


@dataclass(frozen=True, slots=True)
class Condition:
    """The ranges from which a dataset's recordings are drawn.

    Args:
        blur: standard deviation in pixels.
        noise: standard deviation, of pixels in [0, 1].
        gamma: exponent of the camera's response.
        warmth: added to red and taken from blue, as a share.
        jpeg: quality of the stored frames, both ends included.
        movement: amplitude of pose, light and expression.
        skin: range of the trait `skin`.
        clutter: of the background, see `render`.
    """

    blur: tuple[float, float]
    noise: tuple[float, float]
    gamma: tuple[float, float]
    warmth: tuple[float, float]
    jpeg: tuple[int, int]
    movement: float
    skin: tuple[float, float]
    clutter: float


CONDITIONS = {
    "synthetic": Condition(
        blur=(0.35, 0.6),
        noise=(0.008, 0.016),
        gamma=(0.95, 1.1),
        warmth=(-0.02, 0.04),
        jpeg=(92, 97),
        movement=0.5,
        skin=(-0.9, 0.5),
        clutter=0.4,
    ),
    "synthetic_shift": Condition(
        blur=(0.45, 0.85),
        noise=(0.012, 0.03),
        gamma=(0.75, 1.3),
        warmth=(-0.08, 0.03),
        jpeg=(80, 95),
        movement=1.0,
        skin=(-0.5, 1.0),
        clutter=1.0,
    ),
}

ANYWHERE = Condition(
    blur=(0.3, 0.9),
    noise=(0.0, 0.03),
    gamma=(0.7, 1.35),
    warmth=(-0.09, 0.06),
    jpeg=(75, 98),
    movement=1.0,
    skin=(-1.0, 1.0),
    clutter=1.0,
)
"""The wide mixture that the embedded backbone is pretrained on, without any forgery."""


def draw_identity(rng: Generator, condition: Condition) -> Identity:
    """Draws a person of a dataset."""
    traits = dict(zip(TRAITS, rng.uniform(-1, 1, len(TRAITS)).tolist(), strict=True))
    traits["skin"] = float(rng.uniform(*condition.skin))
    traits |= {flag: float(rng.random() < 0.35) for flag in TRAIT_FLAGS}
    return Identity(**traits)


def draw_movement(rng: Generator, count: int, condition: Condition) -> list[Pose]:
    """Draws the smooth movement of a head over the `count` frames of a video.

    It is a base pose and a slow sine per degree of freedom.
    """
    names = [field.name for field in fields(Pose)]
    base = rng.uniform(-1, 1, len(names)) * condition.movement
    swing = rng.uniform(0.1, 0.4, len(names)) * condition.movement
    phase, speed = rng.uniform(0, 2 * np.pi, len(names)), rng.uniform(0.3, 1.2, len(names))
    return [Pose(*(base + swing * np.sin(phase + speed * time)).tolist()) for time in range(count)]


def photograph(image: Image, settings: Generator, grain: Generator, condition: Condition) -> Image:
    """The photograph of a scene: blurred, toned and with noise.

    Args:
        settings: the camera's generator, seeded per video.
        grain: the noise's generator, seeded per frame.
    """
    image = cv2.GaussianBlur(image, (0, 0), settings.uniform(*condition.blur))
    warmth = settings.uniform(*condition.warmth)
    image = np.clip(image, 0, 1) ** settings.uniform(*condition.gamma) * np.array(
        [1 + warmth, 1, 1 - warmth], np.float32
    )
    image = image + settings.uniform(*condition.noise) * grain.standard_normal(
        image.shape, np.float32
    )
    return np.clip(image, 0, 1).astype(np.float32)
