"""How faces are cropped for a detector, and what it says of the crops. Needs no torch."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.data.extraction.alignment import crop_face
from fmsd.data.extraction.faces import Face
from fmsd.data.extraction.frames import stored_side
from fmsd.data.extraction.recipe import Recipe, as_extracted
from fmsd.data.extraction.video import Sample
from fmsd.errors import InputError

DEFAULT = Recipe()
"""What `fmsd extract` does unless told otherwise."""

CROPS_REMEDY = (
    "train on the output of fmsd extract, which records this, or crop faces as the training data "
    "were cropped and score the crops in Python: fmsd.load(RUN).score(FILES)"
)
"""What to do about a detector of which it is not known how its faces were cropped."""

Crops = UInt8[ndarray, "batch size size 3"]


@dataclass(frozen=True)
class CropSettings:
    """How faces are cropped: as the training data of the detector were.

    Args:
        size: side in pixels.
        margin: side as a multiple of the tight face's.
        align: eyes, nose and mouth at fixed places.
        format: `png` or `jpg`, of the files that the crops were.
        quality: JPEG quality, from 1 to 100.
        min_face: faces with a side below this number of stored pixels are left out; 0 for none.
    """

    size: int = DEFAULT.size
    margin: float = DEFAULT.margin
    align: bool = DEFAULT.align
    format: str = DEFAULT.format
    quality: int = DEFAULT.quality
    min_face: int = 0

    def keeps(self, face: Face, sample: Sample) -> bool:
        """Whether a face of a frame is large enough."""
        return self.min_face == 0 or stored_side(face, sample) >= self.min_face

    def crop(self, image: ndarray, face: Face) -> UInt8[ndarray, "size size 3"]:
        """The crop of a face in an RGB image, as the detector was trained on."""
        pixels = crop_face(image, face, self.size, self.margin, self.align)
        return as_extracted(pixels, self.format, self.quality)


class CropScores(NamedTuple):
    """The scores of crops.

    Args:
        score: probabilities of fake.
        distance: of their features from those of the validation data, from 0 to 2; NaN if unknown.
    """

    score: Float[ndarray, " batch"]
    distance: Float[ndarray, " batch"]


class ScoreError(InputError):
    """The detector gave no score: no fault of the file whose faces it was to score."""


class CropScorer(Protocol):
    """Scores a batch of face crops."""

    def __call__(self, crops: Crops) -> CropScores:
        """The scores of RGB crops of any one size."""
        ...


def score_crops(scorer: CropScorer, crops: Crops) -> CropScores:
    """The scores of RGB crops of any one size, all finite.

    Raises:
        ScoreError: the detector cannot score them, or a score is not finite.
    """
    try:
        scores = scorer(crops)
    except InputError as error:
        raise ScoreError(error.message, error.remedy) from error
    if not np.isfinite(scores.score).all():
        raise ScoreError(
            "The detector's scores are not finite: its training diverged, its file is damaged, or "
            "its device computes wrong",
            "give another run, or device=cpu",
        )
    return scores
