"""What a prediction found in a file: frames, persons, and the score of the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

Status = Literal["scored", "no face", "unreadable"]


@dataclass(frozen=True)
class FrameScore:
    """The score of one face in one frame.

    Args:
        position: index of the frame in the video, from 0.
        seconds: its time of presentation.
        person: number of the track, from 1.
        box: left, top, width and height of the face in pixels.
        score: probability of fake, not calibrated.
        distance: of the face's features from those of the validation data, from 0 to 2; NaN if
            unknown.
    """

    position: int
    seconds: float
    person: int
    box: tuple[float, float, float, float]
    score: float
    distance: float


@dataclass(frozen=True)
class PersonScore:
    """The score of one person's track.

    Args:
        person: its number, from 1, in the order of the area that the faces cover.
        frames: number of frames in which the face is seen.
        first, last: seconds of the first and last of these frames.
        score: the scores of its frames, aggregated as for the videos of the run's tests.
        counts: whether its score may be the file's, see `fmsd.inference.predictor.person_scores`.
    """

    person: int
    frames: int
    first: float
    last: float
    score: float
    counts: bool


@dataclass(frozen=True)
class SuspiciousFace:
    """A face crop that is shown with a score.

    Args:
        frame: its score.
        crop: its pixels, as the detector's training data were cropped.
    """

    frame: FrameScore
    crop: UInt8[ndarray, "size size 3"] = field(compare=False)


HeatMaps = Callable[[Sequence[SuspiciousFace]], Sequence[Float[ndarray, "rows columns"]]]
"""The attribution maps of faces, of any size, as `fmsd.models.attribution` computes them."""


@dataclass(frozen=True)
class FilePrediction:
    """What was found in one file.

    Args:
        path: as it was given.
        status: `scored`, `no face`, or `unreadable`.
        message: why it is unreadable; empty otherwise.
        kind: `image` or `video`; empty where unreadable.
        sampled: number of frames that were looked at.
        damaged: number of them that could not be decoded.
        frames: of every face, in the order of presentation.
        persons: the one who covers the largest area first.
        suspicious: the faces with the highest scores of the person who decides.
    """

    path: str
    status: Status
    message: str = ""
    kind: str = ""
    sampled: int = 0
    damaged: int = 0
    frames: Sequence[FrameScore] = ()
    persons: Sequence[PersonScore] = ()
    suspicious: Sequence[SuspiciousFace] = ()

    @property
    def decides(self) -> PersonScore | None:
        """The person with the highest score, whose score is the file's."""
        return max(
            (person for person in self.persons if person.counts),
            key=lambda person: person.score,
            default=None,
        )

    @property
    def share(self) -> float:
        """The share of the frames with a face in which the person who decides is seen."""
        person = self.decides
        if person is None:
            return float("nan")
        return person.frames / len({frame.position for frame in self.frames})

    @property
    def distance(self) -> float:
        """The median distance of the deciding person's features from the validation data's."""
        person = self.decides
        if person is None:
            return float("nan")
        return float(
            np.median([frame.distance for frame in self.frames if frame.person == person.person])
        )
