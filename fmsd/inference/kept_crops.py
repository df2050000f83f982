"""The crops with the highest scores of each person of a file, while it is decoded."""

import heapq
from collections import defaultdict

from numpy import ndarray

SHOWN = 8
"""Largest number of crops that are shown of a file, those with the highest scores."""

KEPT = 16 * SHOWN
"""Crops that are kept, at most, while it is not known yet which person they are shown of."""


class KeptCrops:
    """Keeps up to `SHOWN` crops per track, and `KEPT` in all.

    Beyond that, the track with the fewest faces gives one up: it is the least likely to count.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[float, int, ndarray]]] = {}
        self._faces = defaultdict[int, int](int)
        self._count = 0

    def add(self, track: int, score: float, number: int, crop: ndarray) -> None:
        """Takes a crop of a track.

        Args:
            number: of the face; earlier ones come first where scores are equal.
        """
        self._faces[track] += 1
        heap = self._heaps.setdefault(track, [])
        heapq.heappush(heap, (score, -number, crop))
        self._count += 1
        if len(heap) > SHOWN:
            self._drop(track)
        elif self._count > KEPT:
            self._drop(min(self._heaps, key=lambda each: (self._faces[each], -each)))

    def _drop(self, track: int) -> None:
        heapq.heappop(self._heaps[track])
        self._count -= 1
        if not self._heaps[track]:
            del self._heaps[track]

    def of(self, track: int) -> list[tuple[int, ndarray]]:
        """The numbers and crops of a track's faces, the highest score first."""
        best = sorted(self._heaps.get(track, ()), key=lambda item: (-item[0], -item[1]))
        return [(-number, crop) for _, number, crop in best]
