"""Tracks of faces: the persons of a video, by position and size of their faces."""

import math
from collections.abc import Sequence

from fmsd.data.extraction.faces import Face


def track_faces(frames: Sequence[Sequence[Face]], reach: float = 2.0) -> list[dict[int, Face]]:
    """Tracks of the persons of a video, the one whose faces cover the largest area first.

    A face continues the nearest track whose last face is at most `reach` face sides away and less
    than twice and more than half as large. Persons are told apart by position and size only, not by
    their looks: our reading.

    Args:
        frames: the faces of each frame.
        reach: largest distance of the centres of two consecutive faces, in face sides.

    Returns:
        Each track as faces by index of the frame.
    """
    tracks: list[dict[int, Face]] = []
    for number, faces in enumerate(frames):
        pairs = []
        for track in tracks:
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
        tracks += [{number: face} for face in faces if id(face) not in taken]
    return sorted(tracks, key=lambda track: -sum(face.side**2 for face in track.values()))
