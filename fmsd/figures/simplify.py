"""Simplification of lines (D. Douglas and T. Peucker, 1973)."""

import heapq

import numpy as np
from jaxtyping import Float64

MAX_POINTS = 300
"""Points of a drawn line: more are not visible."""


def simplify_line(
    x: Float64[np.ndarray, " points"],
    y: Float64[np.ndarray, " points"],
    max_points: int = MAX_POINTS,
) -> tuple[Float64[np.ndarray, " kept"], Float64[np.ndarray, " kept"]]:
    """Keeps the points of a line that matter most for its shape; drops points that are not finite.

    Starting from the end points, the point farthest from the simplified line is added until the
    distance is below a thousandth of the line's extent.

    Args:
        max_points: upper limit of points.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 3:
        return x, y
    points = np.stack([values / (np.ptp(values) or 1.0) for values in (x, y)], axis=1)
    kept = {0, len(x) - 1}
    heap = [_farthest(points, 0, len(x) - 1)]
    while heap and len(kept) < max_points:
        negative_distance, index, first, last = heapq.heappop(heap)
        if -negative_distance < 1e-3:
            break
        kept.add(index)
        for start, end in ((first, index), (index, last)):
            if end - start > 1:
                heapq.heappush(heap, _farthest(points, start, end))
    chosen = sorted(kept)
    return x[chosen], y[chosen]


def _farthest(
    points: Float64[np.ndarray, "points 2"], first: int, last: int
) -> tuple[float, int, int, int]:
    """The point farthest from a chord: negative distance, its index, and the ends of the chord."""
    start, chord = points[first], points[last] - points[first]
    offsets = points[first + 1 : last] - start
    along = np.clip(offsets @ chord / max(chord @ chord, 1e-300), 0, 1)
    distances = np.linalg.norm(offsets - along[:, None] * chord, axis=1)
    index = int(distances.argmax())
    return -float(distances[index]), first + 1 + index, first, last
