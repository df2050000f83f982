"""Thresholds at a fixed false positive rate, chosen on validation data, with intervals."""

import math

from fmsd.metrics.ranking import Labels, Scores, roc_curve
from fmsd.metrics.score_meaning import RATES, OperatingPoint


def operating_points(score: Scores, label: Labels) -> dict[float, OperatingPoint]:
    """The thresholds that a run keeps, by false positive rate."""
    return {rate: operating_point(score, label, rate) for rate in RATES.values()}


def operating_point(score: Scores, label: Labels, rate: float) -> OperatingPoint:
    """The lowest threshold at which at most a share `rate` of the real items is called fake.

    It lies midway between neighbouring scores, so that rounding of scores does not matter. Where
    even the items of the highest score hold too many reals, it is the next number above all scores.

    Args:
        score: probabilities of fake of both classes.
        rate: largest false positive rate, from 0 to 1.
    """
    curve = roc_curve(score, label)
    last = int((curve.false_positive_rate <= rate).sum()) - 1
    scores = curve.threshold[1:].tolist()  # from the highest
    ends = [math.nextafter(scores[0], math.inf), *scores, 0.0]
    above, below = ends[last], ends[last + 1]
    middle = (above + below) / 2
    return OperatingPoint(
        middle if below < middle else above,  # neighbours in float64 have no middle
        int(curve.false_positives[last]),
        int(curve.false_positives[-1]),
        int(curve.true_positives[last]),
        int(curve.true_positives[-1]),
    )
