"""A detector that is ready to score files and images, wherever it comes from. Needs no torch."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.data.extraction.faces import FaceDetector, YuNet
from fmsd.data.loading.image import read_image
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropScorer, score_crops
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.file_section import HEAT_MAP
from fmsd.inference.media import Sampling, list_media
from fmsd.inference.outcome import FilePrediction, HeatMaps
from fmsd.inference.predictor import Predictor
from fmsd.inference.verdict import DEFAULT_AT, Verdict, judge

Frames = int | Literal["all"] | None
"""A number of frames of a video, or all."""

Image = UInt8[ndarray, "height width 3"] | str | Path
"""The RGB pixels of an image, or its file."""


@dataclass(frozen=True, repr=False)
class LoadedDetector:
    """A detector that scores files (`predict`), or images that are crops already (`score`).

    `fmsd.load` makes one.

    Args:
        facts: what is known of it beside its weights.
        scorer: scores crops.
        face_detector: builds the detector of faces, when files are first predicted.
        unusual_limit: distance of features from which a face is unusual; None where unknown.
        heat: heat maps of faces; None where it cannot draw any.
        map_name: what these are, for people, such as `Grad-CAM`.
        batch_size: crops that are scored together.
    """

    facts: DetectorFacts
    scorer: CropScorer
    face_detector: Callable[[], FaceDetector] = YuNet
    unusual_limit: float | None = None
    heat: HeatMaps | None = None
    map_name: str = HEAT_MAP
    batch_size: int = 32

    def __repr__(self) -> str:
        """One line: the fields hold arrays and networks."""
        return f"<{type(self).__name__} of {self.facts.name}>"

    @overload
    def predict(
        self, path: str | Path, frames: Frames = 32, fps: float | None = None
    ) -> FilePrediction: ...

    @overload
    def predict(
        self, path: Iterable[str | Path], frames: Frames = 32, fps: float | None = None
    ) -> list[FilePrediction]: ...

    def predict(
        self,
        path: str | Path | Iterable[str | Path],
        frames: Frames = 32,
        fps: float | None = None,
    ) -> FilePrediction | list[FilePrediction]:
        """Finds and scores the faces in an image or a video, or in each of several files.

        A file that cannot be read, or shows no face, is a result with that status.

        Args:
            path: a file; or several files and folders, of which all images and videos are taken.
            frames: number of frames of a video, evenly spaced; `all` or None for every one.
            fps: frames per second of a video, in place of `frames`.

        Returns:
            The prediction of the file; of several paths those of all files, in order.

        Raises:
            InputError: a path does not exist, or a number is out of range.
        """
        predictor = self.predictor(Sampling(None if frames == "all" else frames, fps))
        if isinstance(path, str | Path):
            single = Path(path)
            (file, *more) = list_media([single])
            if more or single.is_dir():
                raise InputError(f"{path} is a folder", "give it in a list: predict([folder])")
            return predictor.predict(file)
        return list(predictor.predict_each(list_media(map(Path, path))))

    @functools.cached_property
    def faces(self) -> FaceDetector:
        """The detector of faces.

        Raises:
            InputError: its model cannot be found.
        """
        return self.face_detector()

    def predictor(self, sampling: Sampling) -> Predictor:
        """The predictor of files, as this detector needs it."""
        return Predictor(
            self.scorer,
            self.faces,
            self.facts.crops,
            self.facts.video_score,
            sampling,
            self.batch_size,
        )

    def score(self, images: Image | Sequence[Image]) -> Float[ndarray, " images"]:
        """The probabilities of fake, not calibrated, of images that are face crops already.

        Args:
            images: RGB crops of any size, as arrays or files; an array may hold a batch of them.
                They should be cropped as the training data were, see `facts.crops`.

        Raises:
            InputError: a file cannot be read, an array is no image, or the detector gave no
                finite score (`ScoreError`).
        """
        if isinstance(images, str | Path) or (isinstance(images, ndarray) and images.ndim < 4):
            images = [images]
        crops = [as_pixels(image) for image in images]
        scores = np.empty(len(crops))
        for start in range(0, len(crops), self.batch_size):
            part = range(start, min(start + self.batch_size, len(crops)))
            for shape in {crops[place].shape for place in part}:
                places = [place for place in part if crops[place].shape == shape]
                same = np.stack([crops[place] for place in places])
                scores[places] = score_crops(self.scorer, same).score
        return scores

    def verdict(
        self,
        prediction: FilePrediction,
        at: str = DEFAULT_AT,
        *,
        threshold: float | None = None,
    ) -> Verdict | None:
        """What the score of a file means; None for a file without a score.

        Args:
            prediction: of `predict`.
            at: `fpr1`, `fpr5` or `fpr10`: the threshold of at most 1, 5 or 10 % false positives.
            threshold: a score from 0 to 1 from which a file is called fake, in place of `at`.

        Raises:
            InputError: there is no such threshold.
        """
        if not isinstance(at, str):
            raise InputError(
                f"at={at} could be a score or a false positive rate",
                f"give threshold={at} for a score, and at='fpr1', 'fpr5' or 'fpr10' for a rate",
            )
        chosen = at if threshold is None else str(threshold)
        return judge(prediction, self.facts, chosen, self.unusual_limit)


def as_pixels(image: object) -> UInt8[ndarray, "height width 3"]:
    """The RGB pixels of an array or a file.

    Raises:
        InputError: it is neither, or cannot be read.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size:
        if image.dtype == np.uint8:
            return image
        raise InputError(
            f"An image holds {image.dtype} instead of uint8", "give RGB values from 0 to 255"
        )
    what = f"an array of the shape {image.shape}" if isinstance(image, ndarray) else type(image)
    raise InputError(f"{what} is no image", "give uint8 arrays of height x width x 3, or files")
