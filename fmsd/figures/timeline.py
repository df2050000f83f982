"""Scores of persons over the time of a video."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fmsd.figures.style import LINES, canvas, hide_box, line_style

MAX_POINTS = 300
"""Points of a line; of more frames, the means over as many equal parts of the time are drawn."""

GAP = 2.5
"""A line is broken where the next frame is later than this many times the usual step."""

MIN_SPAN = 0.1
"""The axis of scores spans at least this, so that noise does not look like a change."""

Times = Float64[np.ndarray, " frames"]


@dataclass(frozen=True)
class Track:
    """The scores of one person.

    Args:
        seconds: of each frame, in rising order.
        scores: probabilities of fake.
    """

    seconds: Times
    scores: Times


def plot_timeline(tracks: Sequence[Track], threshold: float | None, marked: Track) -> Figure:
    """Plots a line per person, in the style of its index, with the threshold as a dashed line.

    A line is broken where the person is not seen. Of many frames the means are drawn, within a band
    from the lowest to the highest score.

    Args:
        marked: frames of the first track with a circle.
    """
    figure, axes = canvas(5.6, 2.5)
    usual = _usual_step(tracks)
    for index, track in enumerate(tracks):
        style = line_style(index)
        if len(track.seconds) <= MAX_POINTS:
            seconds, scores = _broken_at_gaps(track, usual)
            axes.plot(seconds, scores, **style, linewidth=1.5, marker="o", markersize=2.5)
        else:
            seconds, low, mean, high = summarise_track(track)
            axes.fill_between(seconds, low, high, color=style["color"], alpha=0.2, linewidth=0)
            axes.plot(seconds, mean, **style, linewidth=1.5)
    if threshold is not None:
        axes.axhline(threshold, color="black", linewidth=1, linestyle=(0, (5, 3)))
    axes.plot(
        marked.seconds,
        marked.scores,
        linestyle="none",
        marker="o",
        markersize=7,
        markerfacecolor="none",
        markeredgecolor=LINES[0],
    )
    axes.set(ylim=score_limits(tracks, threshold), xlabel="time", ylabel="score")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: format_time(seconds)))
    axes.margins(x=0.02)
    hide_box(axes)
    return figure


def score_limits(tracks: Sequence[Track], threshold: float | None) -> tuple[float, float]:
    """The ends of the axis of scores: around all scores and the threshold."""
    values = [value for track in tracks for value in (track.scores.min(), track.scores.max())]
    values += [] if threshold is None else [threshold]
    middle = (min(values) + max(values)) / 2
    half = max(1.2 * (max(values) - min(values)), MIN_SPAN) / 2
    return max(middle - half, -0.03), min(middle + half, 1.03)


def format_time(seconds: float) -> str:
    """A time as minutes and seconds, with hours where there are any: `0:04.5`, `1:02:03`."""
    tenths = round(10 * max(seconds, 0.0))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"


def summarise_track(track: Track) -> tuple[Times, Times, Times, Times]:
    """The middle, lowest, mean and highest score of `MAX_POINTS` equal parts of a track's time.

    Parts without a frame are NaN.
    """
    first, last = track.seconds[0], track.seconds[-1]
    place = (track.seconds - first) / max(last - first, 1e-9) * MAX_POINTS
    part = np.minimum(place.astype(int), MAX_POINTS - 1)
    count = np.bincount(part, minlength=MAX_POINTS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(part, track.scores, MAX_POINTS) / count
    low, high = np.full(MAX_POINTS, np.inf), np.full(MAX_POINTS, -np.inf)
    np.minimum.at(low, part, track.scores)
    np.maximum.at(high, part, track.scores)
    low[count == 0] = high[count == 0] = np.nan
    middle = first + (np.arange(MAX_POINTS) + 0.5) * (last - first) / MAX_POINTS
    return middle, low, mean, high


def _usual_step(tracks: Sequence[Track]) -> float:
    """The median time between frames in which anyone is seen."""
    seconds = np.unique(np.concatenate([track.seconds for track in tracks]))
    return float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0


def _broken_at_gaps(track: Track, usual: float) -> tuple[Times, Times]:
    """The track with NaN between frames that lie further apart than `GAP` usual steps."""
    gaps = np.flatnonzero(np.diff(track.seconds) > GAP * usual) + 1
    return np.insert(track.seconds, gaps, np.nan), np.insert(track.scores, gaps, np.nan)
