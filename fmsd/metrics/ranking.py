"""Ranking and decision metrics, as pure functions of the scores of a whole set.

They are computed in float64 and exact, ties included. Fakes are the positives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.metrics.calibration import brier, expected_calibration_error

Scores = Float[Tensor, " items"]
"""Probabilities of fake in [0, 1] of a whole set."""

Labels = Int[Tensor, " items"]
"""0 real, 1 fake."""

CurveValues = Float64[Tensor, "*curves"]
"""One value per curve."""


@dataclass(frozen=True)
class Curve:
    """The points of one or many ROC curves as counts, from the highest threshold to the lowest.

    At the first point no item is classified as fake.

    Args:
        false_positives: number of real items classified as fake.
        true_positives: number of fake items classified as fake.
        threshold: the lowest score that is classified as fake; the first one has no meaning.
    """

    false_positives: Float64[Tensor, "*curves points"]
    true_positives: Float64[Tensor, "*curves points"]
    threshold: Float64[Tensor, " points"]

    @property
    def false_positive_rate(self) -> Float64[Tensor, "*curves points"]:
        """The share of real items classified as fake."""
        return self.false_positives / self.false_positives[..., -1:]

    @property
    def true_positive_rate(self) -> Float64[Tensor, "*curves points"]:
        """The share of fake items classified as fake."""
        return self.true_positives / self.true_positives[..., -1:]


def roc_curve(score: Scores, label: Labels) -> Curve:
    """The ROC curve with a point for every distinct score."""
    order = score.argsort(descending=True)
    fakes = label[order].double().cumsum(0)
    return curve_of_counts(score[order], torch.ones_like(fakes).cumsum(0), fakes)


def curve_of_counts(
    score: Scores, items: Float64[Tensor, "*curves items"], fakes: Float64[Tensor, "*curves items"]
) -> Curve:
    """The curves of one sequence of scores under one or many weightings of its items.

    Args:
        score: from the highest to the lowest.
        items: weight of the items up to each one.
        fakes: weight of the fakes among them.
    """
    changes = score.diff() != 0
    ends = torch.cat([changes, changes.new_ones(1)]).nonzero().squeeze(1)  # of equal scores
    if len(ends) < len(score):
        items, fakes = items[..., ends], fakes[..., ends]
    return Curve(
        functional.pad(items - fakes, (1, 0)),
        functional.pad(fakes, (1, 0)),
        functional.pad(score[ends].double(), (1, 0), value=torch.inf),
    )


def curve_auc(curve: Curve) -> CurveValues:
    """The area under each curve; equal scores count half."""
    positives, negatives = curve.true_positives, curve.false_positives
    return torch.trapezoid(positives, negatives) / (negatives[..., -1] * positives[..., -1])


def curve_average_precision(curve: Curve) -> CurveValues:
    """Average precision: the precision at each point, weighted by the true positives it adds."""
    fakes = curve.true_positives
    precision = fakes / (fakes + curve.false_positives).clamp(min=1)
    return (fakes.diff() * precision[..., 1:]).sum(-1) / fakes[..., -1]


def curve_equal_error_rate(curve: Curve) -> CurveValues:
    """Equal error rate: where a curve, linear between its points, meets FPR = 1 - TPR."""
    rate = curve.false_positive_rate
    gap = (1 - curve.true_positive_rate) - rate
    last = (gap >= 0).sum(-1, keepdim=True) - 1
    before, after = gap.gather(-1, last), gap.gather(-1, last + 1)
    low, high = rate.gather(-1, last), rate.gather(-1, last + 1)
    return (low + before / (before - after) * (high - low)).squeeze(-1)


def curve_true_positive_rate(curve: Curve, limit: float) -> CurveValues:
    """The highest TPR among the points of each curve with an FPR of at most the limit."""
    last = (curve.false_positive_rate <= limit).sum(-1, keepdim=True) - 1
    fakes = curve.true_positives
    return (fakes.gather(-1, last) / fakes[..., -1:]).squeeze(-1)


def auc(score: Scores, label: Labels) -> float:
    """Area under the ROC curve; 0.5 is chance, and below it the scores are inverted."""
    return float(curve_auc(roc_curve(score, label)))


def average_precision(score: Scores, label: Labels) -> float:
    """Average precision with fakes as positives; chance is the share of fakes."""
    return float(curve_average_precision(roc_curve(score, label)))


def equal_error_rate(score: Scores, label: Labels) -> float:
    """The error rate at which FPR and FNR are equal, by linear interpolation of the ROC curve."""
    return float(curve_equal_error_rate(roc_curve(score, label)))


def true_positive_rate(score: Scores, label: Labels, limit: float) -> float:
    """The highest TPR of any threshold with an FPR of at most the limit, without interpolation.

    With fewer than 1 / limit real items it is the share of fakes that score above all of them.

    Args:
        limit: false positive rate in [0, 1].
    """
    return float(curve_true_positive_rate(roc_curve(score, label), limit))


def accuracy(score: Scores, label: Labels, threshold: float = 0.5) -> float:
    """The share of correctly classified items; a score equal to the threshold counts as fake."""
    return float(((score >= threshold).long() == label).double().mean())


def balanced_accuracy(score: Scores, label: Labels, threshold: float = 0.5) -> float:
    """The mean of the accuracies on real and on fake items."""
    correct = ((score >= threshold).long() == label).double()
    return float((correct[label == 0].mean() + correct[label == 1].mean()) / 2)


FPR_LIMITS: Mapping[str, float] = {"tpr_0.1": 0.001, "tpr_1": 0.01, "tpr_5": 0.05}
"""The FPR limit of each metric that is a TPR."""

CURVE_METRICS: Mapping[str, Callable[[Curve], CurveValues]] = {
    "auc": curve_auc,
    "ap": curve_average_precision,
    "eer": curve_equal_error_rate,
    **{name: partial(curve_true_positive_rate, limit=limit) for name, limit in FPR_LIMITS.items()},
}
"""The metrics that are computed from ROC curves, of many curves at once."""

DECISION_METRICS: Mapping[str, Callable[[Scores, Labels, float], float]] = {
    "acc": accuracy,
    "bacc": balanced_accuracy,
}
"""The metrics at a probability of 0.5."""

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
"""The metrics of a result table by short name; `tpr_1` is the TPR at an FPR of at most 1 %."""

THRESHOLD_METRICS: Mapping[str, Callable[[Scores, Labels, float], float]] = {
    "acc_val": accuracy,
    "bacc_val": balanced_accuracy,
}
"""The metrics at a threshold that was chosen on validation data."""


def check_metrics(metrics: Sequence[str]) -> Sequence[str]:
    """Returns the names if all metrics exist.

    Raises:
        InputError: an unknown metric.
    """
    names = [*METRICS, *THRESHOLD_METRICS]
    if unknown := [metric for metric in metrics if metric not in names]:
        raise InputError(f"metric={unknown[0]} is unknown", f"choose one of {', '.join(names)}")
    return metrics


def scale_metrics(scale: str) -> list[str] | None:
    """The metrics that scores of a scale have; None for all.

    Scores of an unknown scale have those of ranks: accuracies at 0.5, Brier score and calibration
    error would be values of the map to logits.
    """
    return list(CURVE_METRICS) if scale == "score" else None
