"""From a file to its scores: decode, detect and track faces, crop, score, aggregate.

Frames are decoded one after another and only crops that wait for their batch are kept, so that a
film of an hour needs no more memory than one of a minute.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.data.extraction.alignment import crop_face
from fmsd.data.extraction.faces import Face, FaceDetector
from fmsd.data.extraction.tracking import track_faces
from fmsd.data.extraction.video import Sample
from fmsd.errors import InputError
from fmsd.inference.media import Sampling, check_regular, is_image, map_media
from fmsd.inference.outcome import FilePrediction, FrameScore, PersonScore, SuspiciousFace
from fmsd.metrics.video import aggregate_videos

MIN_SHARE = 0.1
"""A person counts who is seen in this share of the frames in which anyone is seen.

What looks like a face for a moment is not to decide about a film.
"""

MIN_COVER = 0.5
"""The share of these frames that the persons who count have to cover; otherwise all count.

An edited film falls into many short tracks, as persons are followed by position only.
"""

SHOWN = 8
"""Largest number of crops that are shown of a file, those with the highest scores."""

KEPT = 64
"""Crops that are kept while it is not known yet which person they are shown of."""

Crops = UInt8[ndarray, "batch size size 3"]


class CropScores(NamedTuple):
    """The scores of crops.

    Args:
        score: probabilities of fake.
        unusual: distances of their features from those of the validation data; NaN if unknown.
    """

    score: Float[ndarray, " batch"]
    unusual: Float[ndarray, " batch"]


class ScoreError(InputError):
    """The detector gave a score that is no number: no fault of the file that it scored."""


class CropScorer(Protocol):
    """Scores a batch of face crops."""

    def __call__(self, crops: Crops) -> CropScores:
        """The scores of RGB crops of any one size."""
        ...


@dataclass(frozen=True)
class CropSettings:
    """How faces are cropped: as the training data of the detector were.

    Args:
        size: side in pixels.
        margin: side as a multiple of the tight face's.
        align: eyes, nose and mouth at fixed places.
    """

    size: int = 256
    margin: float = 1.3
    align: bool = True


@dataclass
class _Batch:
    """Crops that wait to be scored, and the results by the number of the face.

    Args:
        score: the detector.
        size: crops in a batch.
    """

    score: CropScorer
    size: int
    waiting: list[tuple[int, ndarray]] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    kept: list[tuple[float, int, ndarray]] = field(default_factory=list)
    count: int = 0

    def add(self, crop: ndarray) -> int:
        """Takes a crop; returns the number of its face."""
        number = self.count
        self.count += 1
        self.waiting.append((number, crop))
        if len(self.waiting) == self.size:
            self.flush()
        return number

    def flush(self) -> None:
        """Scores the crops that wait."""
        if not self.waiting:
            return
        result = self.score(np.stack([crop for _, crop in self.waiting]))
        if not np.isfinite(result.score).all():
            raise ScoreError(
                "The detector's scores are not finite: its training diverged, or its device "
                "computes wrong",
                "give another run, or device=cpu",
            )
        for (number, crop), score, unusual in zip(
            self.waiting, result.score.tolist(), result.unusual.tolist(), strict=True
        ):
            self.scores.append((score, unusual))
            heapq.heappush(self.kept, (score, number, crop))
            if len(self.kept) > KEPT:
                heapq.heappop(self.kept)
        self.waiting.clear()


class _FrameFaces(NamedTuple):
    """The faces of a frame and their numbers; None where it could not be decoded."""

    position: int
    seconds: float
    faces: list[Face] | None
    numbers: list[int]


@dataclass(frozen=True)
class Predictor:
    """Scores the faces in images and videos.

    Args:
        score: the detector.
        detect: the face detector.
        crops: how faces are cropped.
        video_score: see `fmsd.metrics.video.aggregate_videos`.
        sampling: which frames of a video are scored.
        batch_size: crops that are scored together.
    """

    score: CropScorer
    detect: FaceDetector
    crops: CropSettings = field(default_factory=CropSettings)
    video_score: str = "mean"
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 32

    def predict(
        self, path: Path, on_frame: Callable[[float], None] = lambda seconds: None
    ) -> FilePrediction:
        """The scores of a file; a file that cannot be read is an outcome, too.

        Args:
            on_frame: called with the seconds of each frame when it has been looked at.

        Raises:
            ScoreError: the detector gave a score that is not finite.
        """
        try:
            return self._predict(path, on_frame)
        except ScoreError:
            raise
        except InputError as error:
            return FilePrediction(str(path), "unreadable", str(error))

    def _predict(self, path: Path, on_frame: Callable[[float], None]) -> FilePrediction:
        check_regular(path)
        batch = _Batch(self.score, self.batch_size)

        def look(sample: Sample) -> _FrameFaces:
            faces = None if sample.image is None else self.detect(sample.image)
            numbers = [
                batch.add(crop_face(sample.image, face, **vars(self.crops)))
                for face in faces or ()
                if sample.image is not None
            ]
            on_frame(sample.seconds)
            return _FrameFaces(sample.position, sample.seconds, faces, numbers)

        frames = map_media(path, self.sampling, look)
        batch.flush()
        damaged = sum(frame.faces is None for frame in frames)
        if damaged == len(frames):
            raise InputError(
                f"None of the frames of {path} can be decoded", "copy it again from its source"
            )
        scored = frame_scores(frames, batch.scores)
        persons = person_scores(list(scored.values()), self.video_score)
        prediction = FilePrediction(
            str(path),
            "scored" if scored else "no face",
            kind="image" if is_image(path) else "video",
            sampled=len(frames),
            damaged=damaged,
            frames=list(scored.values()),
            persons=persons,
        )
        return replace(prediction, suspicious=suspicious_faces(prediction, scored, batch.kept))


def frame_scores(
    frames: Sequence[_FrameFaces], scores: Sequence[tuple[float, float]]
) -> dict[int, FrameScore]:
    """The scores of all faces by their number, in the order of presentation.

    Args:
        scores: (score, unusual) by number of the face.
    """
    tracks = track_faces([frame.faces or [] for frame in frames])
    person = {id(face): number for number, track in enumerate(tracks, 1) for face in track.values()}
    return {
        number: FrameScore(
            frame.position, frame.seconds, person[id(face)], _box(face), *scores[number]
        )
        for frame in frames
        for face, number in zip(frame.faces or (), frame.numbers, strict=True)
    }


def _box(face: Face) -> tuple[float, float, float, float]:
    left, top, width, height = (round(float(value), 1) for value in face.box)
    return left, top, width, height


def person_scores(frames: Sequence[FrameScore], video_score: str) -> list[PersonScore]:
    """The score of each person, in the order of their numbers.

    A person counts who is seen in a share `MIN_SHARE` of the frames with a face. Where those who
    count cover less than `MIN_COVER` of these frames, all persons count.

    Args:
        video_score: see `fmsd.metrics.video.aggregate_videos`.
    """
    if not frames:
        return []
    table = pl.DataFrame(
        {
            "video": [frame.person for frame in frames],
            "label": 0,
            "score": [frame.score for frame in frames],
        }
    )
    aggregated = dict(aggregate_videos(table, video_score).select("video", "score").iter_rows())
    tracks: dict[int, list[FrameScore]] = {person: [] for person in sorted(aggregated)}
    for frame in frames:
        tracks[frame.person].append(frame)
    seen = len({frame.position for frame in frames})
    often = {person for person, own in tracks.items() if len(own) >= MIN_SHARE * seen}
    covered = len({frame.position for frame in frames if frame.person in often})
    counting = often if covered >= MIN_COVER * seen else tracks
    return [
        PersonScore(
            person,
            len(own),
            own[0].seconds,
            own[-1].seconds,
            aggregated[person],
            person in counting,
        )
        for person, own in tracks.items()
    ]


def suspicious_faces(
    prediction: FilePrediction,
    scored: Mapping[int, FrameScore],
    kept: Sequence[tuple[float, int, ndarray]],
) -> list[SuspiciousFace]:
    """The kept crops with the highest scores of the person who decides, the highest first.

    Args:
        scored: the score of each face by its number.
        kept: (score, number of the face, crop).
    """
    person = prediction.decides
    faces = [
        SuspiciousFace(scored[number], crop)
        for _, number, crop in sorted(kept, key=lambda item: (-item[0], item[1]))
        if number in scored and person and scored[number].person == person.person
    ]
    return faces[:SHOWN]
