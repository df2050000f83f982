"""Drawing a face: an identity in a pose before a background, with a mask of the face."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

SIZE = 64
"""Height and width of a frame in pixels."""

Image = Float[ndarray, "height width 3"]
FaceMask = Float[ndarray, "height width"]


@dataclass(frozen=True, slots=True)
class Identity:
    """The traits that stay the same in all frames of a person.

    Continuous traits lie in [-1, 1]; flags are 0 or 1.
    """

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


TRAIT_FLAGS = ("glasses", "beard")
TRAITS = tuple(field.name for field in fields(Identity))


@dataclass(frozen=True, slots=True)
class Pose:
    """Head position, angles, expression and light of one frame, each about [-1, 1]."""

    x: float
    y: float
    roll: float
    yaw: float
    scale: float
    speech: float
    light_x: float
    light_y: float
    contrast: float


class Scene(NamedTuple):
    """A rendered frame.

    Args:
        image: RGB in [0, 1].
        face: soft mask of the face, in [0, 1].
        points: eyes, nose and mouth, (x, y) in pixels.
    """

    image: Image
    face: FaceMask
    points: Float[ndarray, "4 2"]


def render(who: Identity, pose: Pose, scenery: int, clutter: float, size: int = SIZE) -> Scene:
    """Draws one person in one pose before one background.

    Args:
        scenery: seed of background and skin texture, the same for all frames of a video.
        clutter: 0 for a plain backdrop, 1 for a busy one.
    """
    drawing = _Drawing(who, pose, np.random.default_rng(scenery), clutter, 2 * size)
    drawing.paint_body_and_hair()
    drawing.paint_skin()
    drawing.paint_fringe_and_beard()
    drawing.paint_eyes()
    drawing.paint_nose()
    drawing.paint_mouth()

    def shrink(layer: ndarray) -> ndarray:
        return cv2.resize(layer.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)

    image, face = shrink(np.clip(drawing.image, 0, 1)), shrink(drawing.face)
    return Scene(image, face, ((drawing.landmarks() + 1) / 2 * size).astype(np.float32))


class _Drawing:
    """A frame while it is drawn; both axes of the image run from -1 to 1.

    Args:
        side: height and width in pixels.
    """

    def __init__(
        self, who: Identity, pose: Pose, rng: Generator, clutter: float, side: int
    ) -> None:
        self.who, self.pose, self.rng, self.side = who, pose, rng, side
        grid = np.linspace(-1, 1, side, dtype=np.float32)
        gx, gy = np.meshgrid(grid, grid)
        self.image = _background(gx, gy, rng, clutter)
        # coordinates of the head: centred, upright and of unit scale
        self.scale, self.angle = 1.02 - 0.1 * pose.scale, 0.18 * pose.roll
        px, py = gx - 0.13 * pose.x, gy - 0.1 * pose.y - 0.05
        self.x = self.scale * (np.cos(self.angle) * px + np.sin(self.angle) * py)
        self.y = self.scale * (np.cos(self.angle) * py - np.sin(self.angle) * px)
        # colours
        tone = (1 - who.skin) / 2
        self.skin = (
            np.array([0.38, 0.25, 0.18])
            + tone * np.array([0.52, 0.48, 0.46])
            + who.redness * np.array([0.04, -0.01, -0.02])
        )
        dark = 0.5 + 0.5 * who.hair_tone
        self.hair = np.array([0.1, 0.08, 0.07]) + dark * (
            np.array([0.5, 0.42, 0.3]) + 0.12 * who.hair_warmth * np.array([1, 0, -1])
        )
        self.cloth = rng.uniform(0.1, 0.9, 3)
        # shape of the head
        self.rx, self.ry = 0.58 + 0.06 * who.width, 0.78 + 0.06 * who.height
        self.turn = 0.14 * pose.yaw
        taper = 1 + (0.22 + 0.1 * who.jaw) * np.clip(self.y, 0, None)
        self.face = _soft(np.hypot(self.x / self.rx * taper, self.y / self.ry), 0.04)
        self.spacing = 0.27 + 0.03 * who.eye_spacing
        self.tip = 0.2 + 0.04 * who.nose
        # texture and light
        strands = 1 + 0.16 * np.sin(40 * self.x + 3 * self.noise(16)) * (0.6 + 0.4 * self.noise(5))
        self.strands = strands[..., None]
        self.shade = (
            1
            + (0.22 + 0.12 * pose.contrast)
            * (pose.light_x * self.x / self.rx - 0.6 * pose.light_y * self.y / self.ry)
            - 0.25 * np.clip((self.x / self.rx) ** 2 + (self.y / self.ry) ** 2 - 0.4, 0, 1)
        )

    def noise(self, grain: int) -> ndarray:
        """Smooth noise of the size of the image, see `_noise`."""
        return _noise(self.rng, self.side, grain)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, edge: float = 0.08) -> ndarray:
        """The mask of an ellipse in coordinates of the head."""
        return _ellipse(self.x, self.y, cx, cy, rx, ry, edge)

    def paint(self, mask: ndarray, colour: ndarray) -> None:
        """Covers the image with a colour where the mask is 1."""
        self.image += mask.astype(np.float32)[..., None] * (colour.astype(np.float32) - self.image)

    def paint_body_and_hair(self) -> None:
        """Shoulders, neck, and the hair behind the face."""
        self.paint(self.ellipse(0, 1.45, 1.1, 0.62), self.cloth)
        self.paint(self.ellipse(0, 0.75, 0.3, 0.5), 0.82 * self.skin)
        length = 0.35 + 0.3 * self.who.hair_length
        mane = self.ellipse(0, -0.2, self.rx + 0.14, self.ry * 0.92)
        self.paint(mane * _soft((self.y + 1.2) / (1.2 + length), 0.1), self.hair * self.strands)

    def paint_skin(self) -> None:
        """The face with its pores, shading and cheeks."""
        pores = 1 + 0.02 * self.noise(3) + 0.025 * self.noise(12)
        self.paint(self.face, np.clip(self.skin * (self.shade * pores)[..., None], 0, 1))
        left = self.ellipse(-0.33 + self.turn, 0.22, 0.18, 0.14, 0.8)
        right = self.ellipse(0.33 + self.turn, 0.22, 0.18, 0.14, 0.8)
        colour = np.array([1.0, -0.2, -0.2], np.float32)
        self.image += 0.06 * (self.face * (left + right))[..., None] * colour

    def paint_fringe_and_beard(self) -> None:
        """The hair in front of the face."""
        fringe = self.y + 0.62 - 0.1 * self.who.fringe + 0.2 * np.abs(self.x)
        self.paint(self.face * _soft(fringe / 0.02 + 1, 0.9), self.hair * self.strands)
        if self.who.beard:
            beard = 0.42 - self.y + 0.25 * (self.x / self.rx) ** 2
            self.paint(
                0.75 * self.face * _soft(beard / 0.05 + 1, 0.9), 0.7 * self.hair * self.strands
            )

    def paint_eyes(self) -> None:
        """Eyes, brows and glasses."""
        who, y = self.who, -0.12
        opening = 0.062 + 0.014 * who.eye_size
        white = np.array([0.92, 0.9, 0.88]) * np.clip(np.mean(self.shade), 0.5, 1.1)
        iris = np.array([0.2, 0.28, 0.35]) + (0.5 + 0.5 * who.iris) * np.array([0.15, 0.1, -0.2])
        for sign in (-1, 1):
            x = sign * self.spacing + self.turn
            gaze = x + 0.3 * self.turn
            self.paint(self.ellipse(x, y, 0.115, opening, 0.15), white)
            self.paint(self.ellipse(gaze, y, 0.05, 0.055, 0.2), iris)
            self.paint(self.ellipse(gaze, y, 0.022, 0.024, 0.3), np.full(3, 0.04))
            self.paint(self.ellipse(gaze - 0.02, y - 0.02, 0.012, 0.012, 0.4), np.full(3, 0.97))
            lift = sign * 0.25 * who.brow_tilt * (self.x - x)
            brow = _ellipse(self.x, self.y + lift, x, y - 0.15, 0.15, 0.026 + 0.012 * who.brow, 0.3)
            self.paint(0.9 * brow, 0.7 * self.hair)
            if who.glasses:
                ring = np.abs(np.hypot((self.x - x) / 0.17, (self.y - y) / 0.13) - 1)
                self.paint(_soft(ring / 0.12, 0.5), np.full(3, 0.09))

    def paint_nose(self) -> None:
        """The bridge of the nose, lit from one side, and its tip."""
        bridge = self.ellipse(1.4 * self.turn + 0.05 * self.pose.light_x, 0.08, 0.05, 0.2, 0.6)
        self.paint(0.35 * bridge, 1.18 * self.skin)
        tip = self.ellipse(1.3 * self.turn, self.tip + 0.05, 0.085, 0.03, 0.5)
        self.paint(0.5 * tip, 0.62 * self.skin)

    def paint_mouth(self) -> None:
        """Lips, and the mouth that opens in speech."""
        who, turn = self.who, self.turn
        half, gape = 0.19 + 0.035 * who.mouth, 0.04 + 0.035 * (1 + self.pose.speech) / 2
        lips = self.skin * np.array([0.95, 0.62, 0.62]) + 0.08 * who.lips * np.array(
            [1, -0.5, -0.3]
        )
        self.paint(self.ellipse(turn, 0.45, half, gape + 0.025, 0.2), np.clip(lips, 0, 1))
        self.paint(
            self.ellipse(turn, 0.45, 0.75 * half, 0.5 * gape, 0.3), np.array([0.25, 0.08, 0.08])
        )

    def landmarks(self) -> Float[ndarray, "4 2"]:
        """Eyes, nose and mouth in coordinates of the image."""
        turn, spacing, angle = self.turn, self.spacing, self.angle
        local = (
            np.array(
                [
                    [-spacing + turn, -0.12],
                    [spacing + turn, -0.12],
                    [1.3 * turn, self.tip],
                    [turn, 0.45],
                ]
            )
            / self.scale
        )
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return local @ rotation.T + np.array([0.13 * self.pose.x, 0.1 * self.pose.y + 0.05])


def _background(gx: ndarray, gy: ndarray, rng: Generator, clutter: float) -> Image:
    """A backdrop with a gradient and, in proportion to `clutter`, blobs of three sizes."""
    hue = rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15, 3)
    blobs = sum(_noise(rng, len(gx), grain) for grain in (48, 24, 12))
    depth = 0.15 * (gx * rng.uniform(-1, 1) + gy * rng.uniform(-1, 1)) + 0.07 * clutter * blobs
    return (hue + depth[..., None] * rng.uniform(0.6, 1.2, 3)).astype(np.float32)


def _noise(rng: Generator, side: int, grain: int) -> ndarray:
    """Smooth unit-variance noise with blobs of about `grain` pixels."""
    coarse = (max(2, side // grain), max(2, side // grain))
    small = rng.standard_normal(coarse).astype(np.float32)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def _ellipse(
    x: ndarray, y: ndarray, cx: float, cy: float, rx: float, ry: float, edge: float
) -> ndarray:
    """The mask of an ellipse about (cx, cy)."""
    return _soft(np.hypot((x - cx) / rx, (y - cy) / ry), edge)


def _soft(distance: ndarray, edge: float) -> ndarray:
    """1 inside (distance < 1), 0 outside, with a smooth edge of relative width `edge`."""
    return np.clip((1 + edge - distance) / (2 * edge), 0, 1)
