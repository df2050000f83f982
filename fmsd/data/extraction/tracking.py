"""Tracks of faces: the persons of a video, by position and size of their faces."""

import math
from collections.abc import Sequence

import numpy as np

from fmsd.data.extraction.faces import Face


class Tracker:
    """Follows the persons of a video frame by frame, and keeps the last face of each only.

    A face continues the nearest track whose last face is at most `reach` face sides away and less
    than twice and more than half as large. Persons are told apart by position and size only, not by
    their looks: our reading.

    Args:
        reach: largest distance of the centres of two consecutive faces, in face sides.
    """

    def __init__(self, reach: float = 2.0) -> None:
        self.reach = reach
        self._last: list[Face] = []
        self._places = np.empty((0, 3))  # x and y of the centre, and side, of each last face
        self._areas: list[float] = []

    def add(self, faces: Sequence[Face]) -> list[int]:
        """The number of the track, from 0, that each face of the next frame continues or begins."""
        numbers: dict[int, int] = {}  # track by index of the face
        taken: set[int] = set()
        for *_, track, index in sorted(self._pairs(faces)):
            if track not in taken and index not in numbers:
                numbers[index] = track
                taken.add(track)
        for index, face in enumerate(faces):
            place = (*face.centre, face.side)
            if index in numbers:
                track = numbers[index]
                self._last[track], self._places[track] = face, place
                self._areas[track] += face.side**2
            else:
                numbers[index] = len(self._last)
                self._last.append(face)
                self._places = np.vstack([self._places, place])
                self._areas.append(face.side**2)
        return [numbers[index] for index in range(len(faces))]

    def _pairs(self, faces: Sequence[Face]) -> list[tuple[float, int, int]]:
        """How badly a face continues a track, the track, and the face; those out of reach left out.

        In long videos the tracks are many, so that most are ruled out as arrays.
        """
        pairs = []
        for index, face in enumerate(faces):
            x, y = face.centre
            far = np.hypot(self._places[:, 0] - x, self._places[:, 1] - y)
            near = far <= 1.01 * self.reach * (self._places[:, 2] + face.side) / 2
            for track in np.flatnonzero(near).tolist():
                last = self._last[track]
                distance = math.dist(last.centre, face.centre) / ((last.side + face.side) / 2)
                growth = abs(math.log2(face.side / last.side))
                if distance <= self.reach and growth < 1:
                    pairs.append((distance + growth, track, index))
        return pairs

    def by_area(self) -> list[int]:
        """The numbers of the tracks, the one whose faces cover the largest area first."""
        return sorted(range(len(self._areas)), key=lambda track: -self._areas[track])


def track_faces(frames: Sequence[Sequence[Face]], reach: float = 2.0) -> list[dict[int, Face]]:
    """Tracks of the persons of a video, the one whose faces cover the largest area first.

    Args:
        frames: the faces of each frame.
        reach: see `Tracker`.

    Returns:
        Each track as faces by index of the frame.
    """
    tracker, tracks = Tracker(reach), list[dict[int, Face]]()
    for number, faces in enumerate(frames):
        for face, track in zip(faces, tracker.add(faces), strict=True):
            if track == len(tracks):
                tracks.append({})
            tracks[track][number] = face
    return [tracks[track] for track in tracker.by_area()]
