"""How well scores rank fakes above reals, and how they decide. Pure functions of whole-set scores in float64; exact, ties included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torchmetrics.functional.classification import binary_roc

from fmsd.errors import InputError
from fmsd.metrics.calibration import brier, expected_calibration_error

Scores = Float[Tensor, " items"]
"""Probabilities of fake in [0, 1] of a whole set: torchmetrics would squash anything else by a sigmoid."""

Labels = Int[Tensor, " items"]
"""0 real, 1 fake."""

CurveValues = Float64[Tensor, "*curves"]
"""One number a curve."""


@dataclass(frozen=True)
class Curve:
    """The points of a ROC curve as counts, from the strictest threshold, at which nothing is called fake, to the laxest; or many such curves.

    Args:
        reals: how many reals are called fake.
        fakes: how many fakes are.
        threshold: the lowest score that is called fake; the first has no meaning.
    """

    reals: Float64[Tensor, "*curves points"]
    fakes: Float64[Tensor, "*curves points"]
    threshold: Float64[Tensor, " points"]

    @property
    def false_positive(self) -> Float64[Tensor, "*curves points"]:
        """The share of reals that are called fake."""
        return self.reals / self.reals[..., -1:]

    @property
    def true_positive(self) -> Float64[Tensor, "*curves points"]:
        """The share of fakes that are called fake."""
        return self.fakes / self.fakes[..., -1:]


def roc_curve(score: Scores, label: Labels) -> Curve:
    """The ROC curve with a point for every distinct score.

    torchmetrics gives shares in float32, which would make 1 of 20 more than 5 %; rounding gives
    back the counts, of up to 8 million items a class.
    """
    false_positive, true_positive, threshold = binary_roc(score, label)
    fakes = label.sum()
    return Curve(
        (false_positive.double() * (len(label) - fakes)).round(),
        (true_positive.double() * fakes).round(),
        threshold.double(),
    )


def curve_auc(curve: Curve) -> CurveValues:
    """The area under each curve; equal scores count half."""
    return torch.trapezoid(curve.fakes, curve.reals) / (curve.reals[..., -1] * curve.fakes[..., -1])


def curve_average_precision(curve: Curve) -> CurveValues:
    """The precision at each point, weighted by the fakes that it adds; not interpolated."""
    precision = curve.fakes / (curve.fakes + curve.reals).clamp(min=1)
    return (curve.fakes.diff() * precision[..., 1:]).sum(-1) / curve.fakes[..., -1]


def curve_equal_error_rate(curve: Curve) -> CurveValues:
    """The error rate where each curve meets FPR = 1 - TPR, by linear interpolation between its points."""
    false_positive = curve.false_positive
    gap = (1 - curve.true_positive) - false_positive
    last = (gap >= 0).sum(-1, keepdim=True) - 1
    before, after = gap.gather(-1, last), gap.gather(-1, last + 1)
    low, high = false_positive.gather(-1, last), false_positive.gather(-1, last + 1)
    return (low + before / (before - after) * (high - low)).squeeze(-1)


def curve_true_positive_rate(curve: Curve, limit: float) -> CurveValues:
    """The highest TPR among the points of each curve whose FPR does not exceed the limit."""
    last = (curve.false_positive <= limit).sum(-1, keepdim=True) - 1
    return (curve.fakes.gather(-1, last) / curve.fakes[..., -1:]).squeeze(-1)


def auc(score: Scores, label: Labels) -> float:
    """Area under the ROC curve; 0.5 is chance, below it the scores are inverted."""
    return float(curve_auc(roc_curve(score, label)))


def average_precision(score: Scores, label: Labels) -> float:
    """Average precision with fakes as positives; chance is the share of fakes."""
    return float(curve_average_precision(roc_curve(score, label)))


def equal_error_rate(score: Scores, label: Labels) -> float:
    """The error rate at which as many reals are called fake as fakes real, between ROC points by linear interpolation."""
    return float(curve_equal_error_rate(roc_curve(score, label)))


def true_positive_rate(score: Scores, label: Labels, limit: float) -> float:
    """The highest TPR that some threshold attains with an FPR of at most the limit.

    Nothing is interpolated: with fewer than 1 / limit reals it is the share of fakes that score
    above every real.

    Args:
        limit: false positive rate in [0, 1].
    """
    return float(curve_true_positive_rate(roc_curve(score, label), limit))


def accuracy(score: Scores, label: Labels, threshold: float = 0.5) -> float:
    """The share of items on the right side of the threshold; a score equal to it counts as fake."""
    return float(((score >= threshold).long() == label).double().mean())


def balanced_accuracy(score: Scores, label: Labels, threshold: float = 0.5) -> float:
    """The mean of the share of reals and that of fakes on the right side of the threshold, whatever their numbers."""
    right = ((score >= threshold).long() == label).double()
    return float((right[label == 0].mean() + right[label == 1].mean()) / 2)


def best_threshold(score: Scores, label: Labels) -> float:
    """The threshold of the highest balanced accuracy (W. J. Youden, Index for rating diagnostic tests, Cancer, 1950); the highest of several.

    It lies midway between neighbouring scores, or the lowest score and 0, so that rounding of
    scores does not decide; calling nothing fake is no candidate. Meant for validation data: on test
    data it would flatter.
    """
    curve = roc_curve(score, label)
    gain = (curve.fakes * curve.reals[-1] - curve.reals * curve.fakes[-1])[
        1:
    ]  # whole numbers, so that ties are ties
    own = curve.threshold[1:]
    below = torch.cat([own[1:], own.new_zeros(1)])
    middle = (own + below) / 2
    middle = torch.where(middle > below, middle, own)  # neighbours in float64 have no middle
    return float(middle[gain == gain.max()][0])


FPR_LIMITS: Mapping[str, float] = {"tpr_0.1": 0.001, "tpr_1": 0.01, "tpr_5": 0.05}
"""The highest FPR of the metrics that are a TPR."""

CURVE_METRICS: Mapping[str, Callable[[Curve], CurveValues]] = {
    "auc": curve_auc,
    "ap": curve_average_precision,
    "eer": curve_equal_error_rate,
    **{name: partial(curve_true_positive_rate, limit=limit) for name, limit in FPR_LIMITS.items()},
}
"""The metrics that a ROC curve tells; of many curves at once."""

METRICS: Mapping[str, Callable[[Scores, Labels], float]] = {
    "auc": auc,
    "ap": average_precision,
    "eer": equal_error_rate,
    "acc": accuracy,
    "bacc": balanced_accuracy,
    **{name: partial(true_positive_rate, limit=limit) for name, limit in FPR_LIMITS.items()},
    "brier": brier,
    "ece": expected_calibration_error,
}
"""The metrics of a result table, by their short names; `tpr_1` is the TPR at an FPR of at most 1 %."""

THRESHOLD_METRICS: Mapping[str, Callable[[Scores, Labels, float], float]] = {
    "acc_val": accuracy,
    "bacc_val": balanced_accuracy,
}
"""The metrics at a threshold that validation data chose."""


def check_metrics(metrics: Sequence[str]) -> Sequence[str]:
    """The names themselves.

    Raises:
        InputError: there is no such metric.
    """
    names = [*METRICS, *THRESHOLD_METRICS]
    if unknown := [metric for metric in metrics if metric not in names]:
        raise InputError(f"metric={unknown[0]} is unknown", f"choose one of {', '.join(names)}")
    return metrics
