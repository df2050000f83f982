"""Five families of forgery, each a function of a scene and a generator seeded per video."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from fmsd.data.synthetic.faces import FaceMask, Image, Scene


def _composite(background: Image, foreground: Image, mask: FaceMask) -> Image:
    """The foreground where the mask is 1, the background where it is 0."""
    return background + mask[..., None] * (foreground - background)


def blend(scene: Scene, tool: Generator) -> Image:
    """Face swap with a visible seam.

    The face, warped and slightly recoloured, is pasted back over itself with a soft border.
    """
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
    return _composite(scene.image, donor, mask)


def upsample(scene: Scene, tool: Generator) -> Image:
    """Fingerprint of a generator: a checkerboard spectrum.

    The face passes through half resolution and a strided transposed convolution.
    """
    size = scene.image.shape[0]
    small = cv2.resize(scene.image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    sparse = np.zeros_like(scene.image)
    sparse[::2, ::2] = small
    kernel = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    kernel = kernel + tool.uniform(-0.05, 0.05, (3, 3))
    grown = cv2.filter2D(sparse, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    detail = scene.image - cv2.GaussianBlur(scene.image, (0, 0), 1.0)
    return _composite(scene.image, grown + np.float32(tool.uniform(0.3, 0.7)) * detail, scene.face)


def relight(scene: Scene, tool: Generator) -> Image:
    """Colour and lighting mismatch.

    The face is lit from another side and under another white balance than its surroundings.
    """
    size = scene.image.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    angle = tool.uniform(0, 2 * np.pi)
    light = 1 + np.float32(tool.uniform(0.15, 0.3)) * (
        np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]
    )
    balance = (1 + tool.uniform(-0.15, 0.15, 3)).astype(np.float32)
    return _composite(scene.image, scene.image * light[..., None] * balance, scene.face)


def resample(scene: Scene, tool: Generator) -> Image:
    """Resolution mismatch: the face is reduced to a lower resolution and enlarged again."""
    size = scene.image.shape[0]
    low = int(size / tool.uniform(1.5, 2.2))
    soft = cv2.resize(
        cv2.resize(scene.image, (low, low), interpolation=cv2.INTER_AREA),
        (size, size),
        interpolation=cv2.INTER_LINEAR,
    )
    return _composite(scene.image, soft, scene.face)


def inpaint(scene: Scene, tool: Generator) -> Image:
    """Local edit: an eye, the nose or the mouth is removed and filled in from around it."""
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
