"""The embedded dataset: procedural faces in two recording conditions, with five families of forgery.

Everything is drawn by this file from a seed, so that the whole path from images on disk to a table
of numbers runs without a download. It is a toy in size and a real question in kind: the two
datasets differ in cameras, framing and people, and the second one holds forgery families that the
first one never shows.

A frame is rendered (identity x pose x light), seen by a camera (blur, noise, colour), manipulated
by a forgery tool whose settings are fixed for a whole video, and stored as JPEG, in this order, as
real deepfakes are.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple, cast

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator

from fmsd.types import REAL, Split

SIZE = 64
"""Height and width of a frame in pixels."""

VERSION = 1
"""Raised whenever the pixels change: it is part of the folder name, so an old copy is never mistaken for a new one."""

Image = Float[ndarray, "height width 3"]
Mask = Float[ndarray, "height width"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is seen: everything that stays the same in all frames of a person. Continuous traits lie in [-1, 1], flags are 0 or 1."""

    skin: float
    redness: float
    width: float
    height: float
    jaw: float
    hair_tone: float
    hair_warmth: float
    hair_length: float
    fringe: float
    eye_spacing: float
    eye_size: float
    iris: float
    brow: float
    brow_tilt: float
    nose: float
    mouth: float
    lips: float
    glasses: float
    beard: float


FLAGS = ("glasses", "beard")
TRAITS = tuple(field.name for field in fields(Identity))


@dataclass(frozen=True, slots=True)
class Pose:
    """How the person is seen in one frame: head position, angles, expression and light, each about [-1, 1]."""

    x: float
    y: float
    roll: float
    yaw: float
    scale: float
    speech: float
    light_x: float
    light_y: float
    contrast: float


@dataclass(frozen=True, slots=True)
class Condition:
    """How a dataset was recorded: its cameras, framing, people and compression."""

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
"""The wide mixture that the embedded backbone is pretrained on; it contains no forgery."""


class Scene(NamedTuple):
    """A rendered frame and where the face is in it: `face` is a soft mask, `points` are eyes, nose and mouth in pixels."""

    image: Image
    face: Mask
    points: Float[ndarray, "4 2"]


def person(rng: Generator, condition: Condition) -> Identity:
    """Draws a person of a dataset."""
    traits = dict(zip(TRAITS, rng.uniform(-1, 1, len(TRAITS)).tolist(), strict=True))
    traits["skin"] = float(rng.uniform(*condition.skin))
    traits |= {flag: float(rng.random() < 0.35) for flag in FLAGS}
    return Identity(**traits)


def movement(rng: Generator, count: int, condition: Condition) -> list[Pose]:
    """Draws the smooth movement of a head over the `count` frames of a video: a base pose and a slow sine per degree of freedom."""
    names = [field.name for field in fields(Pose)]
    base = rng.uniform(-1, 1, len(names)) * condition.movement
    swing = rng.uniform(0.1, 0.4, len(names)) * condition.movement
    phase, speed = rng.uniform(0, 2 * np.pi, len(names)), rng.uniform(0.3, 1.2, len(names))
    return [Pose(*(base + swing * np.sin(phase + speed * time)).tolist()) for time in range(count)]


def _soft(distance: ndarray, edge: float = 0.06) -> ndarray:
    """1 inside (distance < 1), 0 outside, with a smooth edge of relative width `edge`."""
    return np.clip((1 + edge - distance) / (2 * edge), 0, 1)


def _ellipse(
    x: ndarray, y: ndarray, cx: float, cy: float, rx: float, ry: float, edge: float = 0.08
) -> ndarray:
    return _soft(np.hypot((x - cx) / rx, (y - cy) / ry), edge)


def _paint(image: ndarray, mask: ndarray, colour: ndarray) -> None:
    image += mask.astype(np.float32)[..., None] * (colour.astype(np.float32) - image)


def _texture(rng: Generator, size: int, grain: int) -> ndarray:
    """Smooth unit-variance noise with blobs of about `grain` pixels."""
    small = rng.standard_normal((max(2, size // grain), max(2, size // grain))).astype(np.float32)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def render(who: Identity, pose: Pose, scenery: int, clutter: float, size: int = SIZE) -> Scene:
    """Draws one person in one pose before one background.

    Args:
        scenery: seed of background and skin texture, the same for all frames of a video.
        clutter: 0 for a plain backdrop, 1 for a busy one.
    """
    rng = np.random.default_rng(scenery)
    side = 2 * size
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    gx, gy = np.meshgrid(grid, grid)

    hue = rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15, 3)
    blobs = sum(_texture(rng, side, grain) for grain in (48, 24, 12))
    depth = 0.15 * (gx * rng.uniform(-1, 1) + gy * rng.uniform(-1, 1)) + 0.07 * clutter * blobs
    image = (hue + depth[..., None] * rng.uniform(0.6, 1.2, 3)).astype(np.float32)

    scale = 1.02 - 0.1 * pose.scale
    angle = 0.18 * pose.roll
    px, py = gx - 0.13 * pose.x, gy - 0.1 * pose.y - 0.05
    x = scale * (np.cos(angle) * px + np.sin(angle) * py)
    y = scale * (np.cos(angle) * py - np.sin(angle) * px)

    tone = (1 - who.skin) / 2
    skin = (
        np.array([0.38, 0.25, 0.18])
        + tone * np.array([0.52, 0.48, 0.46])
        + who.redness * np.array([0.04, -0.01, -0.02])
    )
    dark = 0.5 + 0.5 * who.hair_tone
    hair = np.array([0.1, 0.08, 0.07]) + dark * (
        np.array([0.5, 0.42, 0.3]) + 0.12 * who.hair_warmth * np.array([1, 0, -1])
    )
    cloth = rng.uniform(0.1, 0.9, 3)

    rx, ry = 0.58 + 0.06 * who.width, 0.78 + 0.06 * who.height
    turn = 0.14 * pose.yaw
    taper = 1 + (0.22 + 0.1 * who.jaw) * np.clip(y, 0, None)
    face = _soft(np.hypot(x / rx * taper, y / ry), 0.04)

    _paint(image, _ellipse(x, y, 0, 1.45, 1.1, 0.62), cloth)
    _paint(image, _ellipse(x, y, 0, 0.75, 0.3, 0.5), 0.82 * skin)
    length = 0.35 + 0.3 * who.hair_length
    mane = _ellipse(x, y, 0, -0.2, rx + 0.14, ry * 0.92) * _soft((y + 1.2) / (1.2 + length), 0.1)
    strands = 1 + 0.16 * np.sin(40 * x + 3 * _texture(rng, side, 16)) * (
        0.6 + 0.4 * _texture(rng, side, 5)
    )
    _paint(image, mane, hair * strands[..., None])

    shade = (
        1
        + (0.22 + 0.12 * pose.contrast) * (pose.light_x * x / rx - 0.6 * pose.light_y * y / ry)
        - 0.25 * np.clip((x / rx) ** 2 + (y / ry) ** 2 - 0.4, 0, 1)
    )
    pores = 1 + 0.02 * _texture(rng, side, 3) + 0.025 * _texture(rng, side, 12)
    _paint(image, face, np.clip(skin * (shade * pores)[..., None], 0, 1))
    cheeks = _ellipse(x, y, -0.33 + turn, 0.22, 0.18, 0.14, 0.8) + _ellipse(
        x, y, 0.33 + turn, 0.22, 0.18, 0.14, 0.8
    )
    image += 0.06 * (face * cheeks)[..., None] * np.array([1.0, -0.2, -0.2], np.float32)
    _paint(
        image,
        face * _soft((y + 0.62 - 0.1 * who.fringe + 0.2 * np.abs(x)) / 0.02 + 1, 0.9),
        hair * strands[..., None],
    )
    if who.beard:
        _paint(
            image,
            0.75 * face * _soft((0.42 - y + 0.25 * (x / rx) ** 2) / 0.05 + 1, 0.9),
            0.7 * hair * strands[..., None],
        )

    spacing, opening = 0.27 + 0.03 * who.eye_spacing, 0.062 + 0.014 * who.eye_size
    iris = np.array([0.2, 0.28, 0.35]) + (0.5 + 0.5 * who.iris) * np.array([0.15, 0.1, -0.2])
    for sign in (-1, 1):
        ex, ey = sign * spacing + turn, -0.12
        _paint(
            image,
            _ellipse(x, y, ex, ey, 0.115, opening, 0.15),
            np.array([0.92, 0.9, 0.88]) * np.clip(np.mean(shade), 0.5, 1.1),
        )
        _paint(image, _ellipse(x, y, ex + 0.3 * turn, ey, 0.05, 0.055, 0.2), iris)
        _paint(image, _ellipse(x, y, ex + 0.3 * turn, ey, 0.022, 0.024, 0.3), np.full(3, 0.04))
        _paint(
            image,
            _ellipse(x, y, ex + 0.3 * turn - 0.02, ey - 0.02, 0.012, 0.012, 0.4),
            np.full(3, 0.97),
        )
        lift = sign * 0.25 * who.brow_tilt * (x - ex)
        _paint(
            image,
            0.9 * _ellipse(x, y + lift, ex, ey - 0.15, 0.15, 0.026 + 0.012 * who.brow, 0.3),
            0.7 * hair,
        )
        if who.glasses:
            ring = np.abs(np.hypot((x - ex) / 0.17, (y - ey) / 0.13) - 1)
            _paint(image, _soft(ring / 0.12, 0.5), np.full(3, 0.09))
    tip = 0.2 + 0.04 * who.nose
    _paint(
        image,
        0.35 * _ellipse(x, y, 1.4 * turn + 0.05 * pose.light_x, 0.08, 0.05, 0.2, 0.6),
        1.18 * skin,
    )
    _paint(image, 0.5 * _ellipse(x, y, 1.3 * turn, tip + 0.05, 0.085, 0.03, 0.5), 0.62 * skin)
    half, gape = 0.19 + 0.035 * who.mouth, 0.04 + 0.035 * (1 + pose.speech) / 2
    lips = skin * np.array([0.95, 0.62, 0.62]) + 0.08 * who.lips * np.array([1, -0.5, -0.3])
    _paint(image, _ellipse(x, y, turn, 0.45, half, gape + 0.025, 0.2), np.clip(lips, 0, 1))
    _paint(
        image,
        _ellipse(x, y, turn, 0.45, 0.75 * half, 0.5 * gape, 0.3),
        np.array([0.25, 0.08, 0.08]),
    )

    local = (
        np.array(
            [[-spacing + turn, -0.12], [spacing + turn, -0.12], [1.3 * turn, tip], [turn, 0.45]]
        )
        / scale
    )
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = local @ rotation.T + np.array([0.13 * pose.x, 0.1 * pose.y + 0.05])
    return Scene(
        cv2.resize(
            np.clip(image, 0, 1).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA
        ),
        cv2.resize(face.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA),
        ((points + 1) / 2 * size).astype(np.float32),
    )


def photograph(image: Image, settings: Generator, grain: Generator, condition: Condition) -> Image:
    """What the camera makes of a scene; `settings` is seeded per video, `grain` per frame."""
    image = cv2.GaussianBlur(image, (0, 0), settings.uniform(*condition.blur))
    warmth = settings.uniform(*condition.warmth)
    image = np.clip(image, 0, 1) ** settings.uniform(*condition.gamma) * np.array(
        [1 + warmth, 1, 1 - warmth], np.float32
    )
    image = image + settings.uniform(*condition.noise) * grain.standard_normal(
        image.shape, np.float32
    )
    return np.clip(image, 0, 1).astype(np.float32)


def _merge(background: Image, foreground: Image, mask: Mask) -> Image:
    return background + mask[..., None] * (foreground - background)


def blend(scene: Scene, tool: Generator) -> Image:
    """Face swap seen at its seam: the face, warped and slightly recoloured, pasted back over itself with a soft border."""
    size = scene.image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), tool.uniform(-6, 6), tool.uniform(0.94, 1.08)
    )
    matrix[:, 2] += tool.uniform(-2.5, 2.5, 2)
    donor = cv2.warpAffine(
        scene.image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    donor = donor * (1 + tool.uniform(-0.1, 0.1, 3)).astype(np.float32) + np.float32(
        tool.uniform(-0.04, 0.04)
    )
    mask = cv2.erode(scene.face, np.ones((3, 3), np.uint8), iterations=int(tool.integers(1, 4)))
    mask = cv2.GaussianBlur(mask, (0, 0), tool.uniform(0.6, 1.6)) * np.float32(
        tool.uniform(0.85, 1)
    )
    return _merge(scene.image, donor, mask)


def upsample(scene: Scene, tool: Generator) -> Image:
    """Generator fingerprint: the face passes through half resolution and a strided transposed convolution (checkerboard spectrum)."""
    size = scene.image.shape[0]
    small = cv2.resize(scene.image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    sparse = np.zeros_like(scene.image)
    sparse[::2, ::2] = small
    kernel = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    kernel = kernel + tool.uniform(-0.05, 0.05, (3, 3))
    grown = cv2.filter2D(sparse, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    detail = scene.image - cv2.GaussianBlur(scene.image, (0, 0), 1.0)
    return _merge(scene.image, grown + np.float32(tool.uniform(0.3, 0.7)) * detail, scene.face)


def relight(scene: Scene, tool: Generator) -> Image:
    """Colour and lighting mismatch: the face is lit from another side and under another white balance than its surroundings."""
    size = scene.image.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    angle = tool.uniform(0, 2 * np.pi)
    light = 1 + np.float32(tool.uniform(0.15, 0.3)) * (
        np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]
    )
    cast_ = (1 + tool.uniform(-0.15, 0.15, 3)).astype(np.float32)
    return _merge(scene.image, scene.image * light[..., None] * cast_, scene.face)


def resample(scene: Scene, tool: Generator) -> Image:
    """Resolution mismatch: the face was made at a lower resolution than the frame and enlarged into it."""
    size = scene.image.shape[0]
    low = int(size / tool.uniform(1.5, 2.2))
    soft = cv2.resize(
        cv2.resize(scene.image, (low, low), interpolation=cv2.INTER_AREA),
        (size, size),
        interpolation=cv2.INTER_LINEAR,
    )
    return _merge(scene.image, soft, scene.face)


def inpaint(scene: Scene, tool: Generator) -> Image:
    """Local edit: the region of one eye, the nose or the mouth is removed and filled in from around it."""
    size = scene.image.shape[0]
    x, y = scene.points[int(tool.integers(len(scene.points)))] + tool.uniform(-2, 2, 2)
    hole = np.zeros((size, size), np.uint8)
    axes = (int(size * tool.uniform(0.07, 0.12)), int(size * tool.uniform(0.06, 0.1)))
    cv2.ellipse(hole, (int(x), int(y)), axes, 0, 0, 360, 255, -1)
    pixels = (scene.image * 255).round().astype(np.uint8)
    return cv2.inpaint(pixels, hole, 3, cv2.INPAINT_TELEA).astype(np.float32) / 255


FORGERIES: dict[str, Callable[[Scene, Generator], Image]] = {
    "blend": blend,
    "upsample": upsample,
    "relight": relight,
    "resample": resample,
    "inpaint": inpaint,
}

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


def clips() -> Iterator[Clip]:
    """Every video of the embedded dataset, in a fixed order."""
    for dataset, splits in PLAN.items():
        for split, domains in splits.items():
            for domain, count in domains.items():
                yield from (
                    Clip(dataset, split, domain, f"{split}{number:03d}") for number in range(count)
                )


def seed_of(*parts: object) -> int:
    """A 32-bit seed that depends on the given words alone, on every machine."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def record(clip: Clip) -> Iterator[UInt8[ndarray, "height width 3"]]:
    """The frames of one video, RGB, before JPEG compression."""
    condition = CONDITIONS[clip.dataset]
    seed = seed_of(VERSION, *clip)
    rng = np.random.default_rng(seed)
    who = person(rng, condition)
    for index, pose in enumerate(movement(rng, FRAMES, condition)):
        scene = render(who, pose, seed, condition.clutter)
        scene = scene._replace(
            image=photograph(
                scene.image,
                np.random.default_rng([seed, 1]),
                np.random.default_rng([seed, 2, index]),
                condition,
            )
        )
        image = (
            scene.image
            if clip.domain == REAL
            else FORGERIES[clip.domain](scene, np.random.default_rng([seed, 3]))
        )
        yield (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def quality(clip: Clip) -> int:
    """The JPEG quality that a video is stored with; drawn alike for real and fake, so that it tells nothing about the label."""
    low, high = CONDITIONS[clip.dataset].jpeg
    return int(np.random.default_rng([seed_of(VERSION, *clip), 4]).integers(low, high + 1))


def encode(image: UInt8[ndarray, "height width 3"], jpeg_quality: int) -> bytes:
    """JPEG bytes of an RGB image, without chroma subsampling."""
    flags = [
        cv2.IMWRITE_JPEG_QUALITY,
        jpeg_quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, buffer = cv2.imencode(".jpg", image[..., ::-1], flags)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG image")
    return cast(bytes, buffer.tobytes())
