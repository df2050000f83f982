"""Face crops: five facial landmarks aligned to fixed places, or a square around the box."""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.pixels import Pixels

ARCFACE_POINTS = (
    np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    )
    / 112
)
"""The alignment template of ArcFace (Deng et al., 2019, arXiv 1801.07698), which the field uses.

Eyes, nose and corners of the mouth in an aligned face, as fractions of its side; each pair from
left to right in the image.
"""


def template(size: int, margin: float) -> Float[ndarray, "5 2"]:
    """The five points of an aligned crop, in pixels.

    Args:
        size: side of the crop in pixels.
        margin: side of the crop as a multiple of the tight face's.
    """
    return ((ARCFACE_POINTS - 0.5) / margin + 0.5) * size


def similarity(
    source: Float[ndarray, "points 2"], target: Float[ndarray, "points 2"]
) -> Float[ndarray, "2 3"]:
    """The least-squares similarity transform from `source` to `target` (Umeyama, 1991).

    Rotation, scale and shift without reflection: in the complex plane z -> a z + b, where a follows
    from one inner product.
    """
    start, goal = source @ [1, 1j], target @ [1, 1j]
    centred = start - start.mean()
    spread = np.vdot(centred, centred).real
    a = np.vdot(centred, goal - goal.mean()) / spread if spread else 1.0 + 0j
    b = goal.mean() - a * start.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def crop_matrix(face: Face, size: int, margin: float, align: bool) -> Float[ndarray, "2 3"]:
    """The affine map from an image to the crop of a face; see `crop_face`."""
    if align:
        return similarity(face.points, template(size, margin))
    scale = size / (max(face.box[2:]) * margin)
    return np.array(
        [
            [scale, 0, size / 2 - scale * face.centre[0]],
            [0, scale, size / 2 - scale * face.centre[1]],
        ]
    )


def crop_landmarks(
    landmarks: Float[ndarray, "points 2"], matrix: Float[ndarray, "2 3"]
) -> Float[ndarray, "points 2"]:
    """Landmarks of an image in the pixels of a crop, rounded to a hundredth.

    Args:
        matrix: see `crop_matrix`.
    """
    return (landmarks @ matrix[:, :2].T + matrix[:, 2]).round(2).astype(np.float32)


def crop_face(
    image: Pixels, face: Face, size: int, margin: float, align: bool
) -> UInt8[ndarray, "size size 3"]:
    """Crops a face to a square, black beyond the edge of the image.

    Args:
        size: side of the crop in pixels.
        margin: side of the crop as a multiple of the tight face's: of the aligned template's, or of
            the box's longer side.
        align: rotate, scale and shift the five points onto `template`; otherwise only cut a square
            around the box.
    """
    matrix = crop_matrix(face, size, margin, align)
    scale = math.hypot(*matrix[:, 0])
    if scale < 0.5:  # a warp reads four pixels for each of its own: shrink what it would skip
        area = 2 * scale
        height = max(1, round(image.shape[0] * area))
        width = max(1, round(image.shape[1] * area))
        shrunk = np.array([image.shape[1] / width, image.shape[0] / height])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.array(
            [[shrunk[0], 0, (shrunk[0] - 1) / 2], [0, shrunk[1], (shrunk[1] - 1) / 2], [0, 0, 1]]
        )
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
