"""Thresholds at a fixed false positive rate, chosen on validation data, with intervals."""

import math
from dataclasses import dataclass

from fmsd.metrics.ranking import Labels, Scores, roc_curve

RATES = (0.01, 0.05, 0.1)
"""False positive rates for which a run keeps a threshold."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its errors on the data that it was chosen on.

    Args:
        threshold: scores from it on are called fake.
        false_positives: number of real items at or above the threshold.
        reals: number of real items.
        true_positives: number of fake items at or above the threshold.
        fakes: number of fake items.
    """

    threshold: float
    false_positives: int
    reals: int
    true_positives: int
    fakes: int

    @property
    def false_positive_rate(self) -> tuple[float, float, float]:
        """The rate, and the ends of its 95 % interval."""
        return self.false_positives / self.reals, *wilson(self.false_positives, self.reals)

    @property
    def true_positive_rate(self) -> tuple[float, float, float]:
        """The rate, and the ends of its 95 % interval."""
        return self.true_positives / self.fakes, *wilson(self.true_positives, self.fakes)


def operating_point(score: Scores, label: Labels, rate: float) -> OperatingPoint:
    """The lowest threshold at which at most a share `rate` of the real items is called fake.

    It lies midway between neighbouring scores, so that rounding of scores does not matter. Where
    even the items of the highest score hold too many reals, it lies above all scores.

    Args:
        score: probabilities of fake of both classes.
        rate: largest false positive rate, from 0 to 1.
    """
    curve = roc_curve(score, label)
    last = int((curve.false_positive_rate <= rate).sum()) - 1
    scores = curve.threshold[1:].tolist()  # from the highest
    ends = [max(1.0, math.nextafter(scores[0], math.inf)), *scores, 0.0]
    above, below = ends[last], ends[last + 1]
    middle = (above + below) / 2
    return OperatingPoint(
        middle if below < middle else above,  # neighbours in float64 have no middle
        int(curve.false_positives[last]),
        int(curve.false_positives[-1]),
        int(curve.true_positives[last]),
        int(curve.true_positives[-1]),
    )


def wilson(count: int, total: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share; 95 % by default.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927. It
    holds for independent items: for videos, not for the frames of one video.
    """
    share, square = count / total, deviations**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total**2)
    half = deviations * math.sqrt(spread) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)
