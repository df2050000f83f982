"""From a file to its scores: decode, detect and track faces, crop, score, aggregate.

Frames are decoded one after another. Of a face only its place and its score stay, about half a
kilobyte, and the crops that wait for their batch or may be shown.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy import ndarray

from fmsd.data.extraction.faces import Face, FaceDetector
from fmsd.data.extraction.tracking import Tracker
from fmsd.data.extraction.video import Sample
from fmsd.data.spelling import escape_non_utf8
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropScorer, CropSettings, ScoreError, score_crops
from fmsd.inference.kept_crops import KeptCrops
from fmsd.inference.media import Sampling, check_medium, is_image, map_media
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


class _Face(NamedTuple):
    """What is kept of a face beside its score.

    Args:
        track: number of its track, see `Tracker`.
    """

    position: int
    seconds: float
    track: int
    box: tuple[float, float, float, float]


class _File:
    """What is known of a file that is decoded, or whose faces wait to be scored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.message = self.kind = ""
        self.restart()

    def restart(self) -> None:
        """Forgets all frames; faces that still wait then belong to no file."""
        self.tracker, self.kept = Tracker(), KeptCrops()
        self.faces: list[_Face] = []
        self.scores = array("d")  # score and distance of each face
        self.sampled = self.damaged = 0
        self.position = -1
        self.attempt = object()

    @property
    def done(self) -> bool:
        """Whether all faces are scored."""
        return len(self.scores) == 2 * len(self.faces)


class _Waiting(NamedTuple):
    """A crop that waits to be scored, for one attempt to decode its file."""

    file: _File
    attempt: object
    number: int
    crop: ndarray


@dataclass
class _Batch:
    """Crops of one file or of several that wait to be scored together.

    Args:
        score: the detector.
        size: crops in a batch.
    """

    score: CropScorer
    size: int
    waiting: list[_Waiting] = field(default_factory=list)

    def add(self, file: _File, face: _Face, crop: ndarray) -> None:
        """Takes a face of a file."""
        self.waiting.append(_Waiting(file, file.attempt, len(file.faces), crop))
        file.faces.append(face)
        if len(self.waiting) == self.size:
            self.flush()

    def flush(self) -> None:
        """Scores the crops that wait, and gives each file its scores.

        Raises:
            ScoreError: the detector gave no finite score, or none at all.
        """
        waiting = [each for each in self.waiting if each.attempt is each.file.attempt]
        self.waiting.clear()
        if not waiting:
            return
        result = score_crops(self.score, np.stack([each.crop for each in waiting]))
        for each, score, distance in zip(
            waiting, result.score.tolist(), result.distance.tolist(), strict=True
        ):
            file = each.file
            file.scores.extend((score, distance))
            file.kept.add(file.faces[each.number].track, score, each.number, each.crop)


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
            ScoreError: the detector gave no finite score.
        """
        (prediction,) = self.predict_each([path], on_frame)
        return prediction

    def predict_each(
        self, paths: Iterable[Path], on_frame: Callable[[float], None] = lambda seconds: None
    ) -> Iterator[FilePrediction]:
        """Yields the scores of each of several files, in order; a batch holds faces of several.

        Args:
            paths: the next one is asked for when the frames of the one before are decoded.
            on_frame: as of `predict`.

        Raises:
            ScoreError: the detector gave a score that is not finite.
        """
        batch, files = _Batch(self.score, self.batch_size), deque[_File]()
        for path in paths:
            files.append(_File(path))
            try:
                self._look(files[-1], batch, on_frame)
            except ScoreError:
                raise
            except InputError as error:
                files[-1].restart()
                files[-1].message = str(error)
            if len(files) > self.batch_size:
                batch.flush()
            while files and files[0].done:
                yield self._prediction(files.popleft())
        batch.flush()
        yield from map(self._prediction, files)

    def _look(self, file: _File, batch: _Batch, on_frame: Callable[[float], None]) -> None:
        """Decodes a file, and follows its faces.

        Raises:
            InputError: the file cannot be read.
        """

        def look(sample: Sample) -> None:
            if sample.position <= file.position:  # it is decoded again from its start
                file.restart()
            file.position = sample.position
            file.sampled += 1
            if sample.image is None:
                file.damaged += 1
            else:
                found = self.detect(sample.image)
                faces = [face for face in found if self.crops.keeps(face, sample)]
                for face, track in zip(faces, file.tracker.add(faces), strict=True):
                    about = _Face(sample.position, sample.seconds, track, _box(face))
                    batch.add(file, about, self.crops.crop(sample.image, face))
            on_frame(sample.seconds)

        check_medium(file.path)
        file.kind = "image" if is_image(file.path) else "video"
        map_media(file.path, self.sampling, look)
        if file.damaged == file.sampled:
            raise InputError(
                f"None of the frames of {file.path} can be decoded", "copy it again from its source"
            )

    def _prediction(self, file: _File) -> FilePrediction:
        """What was found in a file whose faces are all scored."""
        path = escape_non_utf8(file.path)
        if file.message:
            return FilePrediction(path, "unreadable", file.message)
        tracks = file.tracker.by_area()
        person = {track: number for number, track in enumerate(tracks, 1)}
        frames = [
            FrameScore(face.position, face.seconds, person[face.track], face.box, score, distance)
            for face, score, distance in zip(
                file.faces, file.scores[::2], file.scores[1::2], strict=True
            )
        ]
        prediction = FilePrediction(
            path,
            "scored" if frames else "no face",
            kind=file.kind,
            sampled=file.sampled,
            damaged=file.damaged,
            frames=frames,
            persons=person_scores(frames, self.video_score),
        )
        if (decides := prediction.decides) is None:
            return prediction
        shown = file.kept.of(tracks[decides.person - 1])
        return replace(
            prediction, suspicious=[SuspiciousFace(frames[number], crop) for number, crop in shown]
        )


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
