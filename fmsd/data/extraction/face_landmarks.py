"""MediaPipe's face detector with 478 dense landmarks, a second one beside YuNet."""

import importlib
from typing import Any

import numpy as np

from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.model_files import ModelFile, check_detection, locate_model
from fmsd.data.extraction.pixels import Pixels
from fmsd.errors import InputError, reason

FACE_LANDMARKER = ModelFile(
    "face_landmarker.task",
    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    None,
    "MediaPipe Face Landmarker",
    "copy it from MediaPipe's model page",
)
"""MediaPipe's model bundle (Apache 2.0 licence)."""

RELEASE = "1.2.2"
"""The release of the package mediapipe that this module was tested with."""

POINTS = [468, 473, 1, 61, 291]
"""Landmarks of the eyes (irises), the nose and the corners of the mouth, from left to right."""

MOST = 10
"""Largest number of faces in an image."""

TEST_SCORE = 0.5
"""Confidence that faces in the test picture need."""


def build_face_landmarks(weights: str | None = None, score: float = 0.5) -> "FaceLandmarks":
    """MediaPipe's face detector.

    The package is imported here, as an exception in it keeps the frames of the import alive, which
    would keep a detector alive that imported it.

    Args:
        weights: a bundle `face_landmarker.task`; None for `FACE_LANDMARKER`.
        score: smallest confidence of a face, between 0 and 1.

    Raises:
        InputError: the score is out of range, the package is missing, or the model is missing,
            unreadable, or detects no face in a test picture.
    """
    if not (isinstance(score, float | int) and 0 < score < 1):
        raise InputError(f"detector.score={score} is out of range", "give one from 0 to 1")
    try:
        mediapipe = importlib.import_module("mediapipe")
    except ImportError as error:
        raise InputError(
            f"detector=mediapipe needs the package mediapipe ({reason(error)})",
            f"install it with pip install --no-deps mediapipe=={RELEASE}, as its dependencies "
            "would replace OpenCV",
        ) from error
    return FaceLandmarks(mediapipe, weights, score)


class FaceLandmarks:
    """MediaPipe Face Landmarker: faces by BlazeFace, 478 landmarks by an attention mesh.

    Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", CVPR
    workshop 2019, arXiv 1907.06724. Its detector sees an image at 128 pixels, so that faces below a
    sixth of its side are missed: an image without a face is searched again in overlapping squares
    of half of its longer side.

    Args:
        mediapipe: the package.
        weights, score: see `build_face_landmarks`.
    """

    def __init__(self, mediapipe: Any, weights: str | None, score: float) -> None:
        path, digest = locate_model(FACE_LANDMARKER, weights)
        self._mediapipe = mediapipe
        try:
            self._landmarker = self._create(str(path), TEST_SCORE)
            check_detection(self, path)
            if score != TEST_SCORE:
                self._landmarker.close()
                self._landmarker = self._create(str(path), score)
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"{path} is not a MediaPipe Face Landmarker model", "correct detector.weights=PATH"
            ) from error
        self.about: dict[str, Any] = {
            "name": "mediapipe",
            "sha256": digest,
            "mediapipe": mediapipe.__version__,
            "score": score,
        }

    def __del__(self) -> None:
        """Closes the landmarker, which is in a reference cycle and fails to close at exit."""
        if hasattr(self, "_landmarker"):
            self._landmarker.close()

    def _create(self, path: str, score: float) -> Any:
        """A landmarker of MediaPipe."""
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=path),
            num_faces=MOST,
            min_face_detection_confidence=score,
        )
        return tasks.vision.FaceLandmarker.create_from_options(options)

    def __call__(self, image: Pixels) -> list[Face]:
        """All faces of an RGB image, the largest first."""
        faces = self._detect(image, 0, 0)
        if not faces:
            height, width, _ = image.shape
            side = max(height, width) // 2
            for top in range(0, max(height - side // 2, 1), max(side // 2, 1)):
                for left in range(0, max(width - side // 2, 1), max(side // 2, 1)):
                    tile = image[top : top + side, left : left + side]
                    if min(tile.shape[:2], default=0) >= 16:
                        faces += self._detect(tile, left, top)
        return distinct_faces(faces)

    def _detect(self, image: Pixels, left: int, top: int) -> list[Face]:
        """The faces of a part of an image that begins at the pixel (left, top)."""
        height, width, _ = image.shape
        packed = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        faces = []
        for mesh in self._landmarker.detect(packed).face_landmarks:
            landmarks = np.array(
                [(point.x * width + left, point.y * height + top) for point in mesh]
            )
            low, high = landmarks.min(0), landmarks.max(0)
            points = landmarks[POINTS]
            box = (low[0], low[1], high[0] - low[0], high[1] - low[1])
            faces.append(Face(box, points, None, landmarks))
        return faces


def distinct_faces(faces: list[Face]) -> list[Face]:
    """The faces, the largest first, without those whose centre lies in a larger one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.side):
        x, y = face.centre
        if not any(
            0 <= x - one.box[0] <= one.box[2] and 0 <= y - one.box[1] <= one.box[3] for one in kept
        ):
            kept.append(face)
    return kept
