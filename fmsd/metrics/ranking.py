"""How well scores rank fakes above reals. Pure functions of whole-set scores; exact, ties included."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc

Scores = Float[Tensor, " items"]
"""Probabilities of fake in [0, 1] of a whole set: torchmetrics would squash anything else by a sigmoid."""

Labels = Int[Tensor, " items"]
"""0 real, 1 fake."""


def auc(score: Scores, label: Labels) -> float:
    """Area under the ROC curve; 0.5 is chance, below it the scores are inverted."""
    return float(binary_auroc(score, label))


def average_precision(score: Scores, label: Labels) -> float:
    """Average precision with fakes as positives; chance is the share of fakes."""
    return float(binary_average_precision(score, label))


def equal_error_rate(score: Scores, label: Labels) -> float:
    """The error rate at which as many reals are called fake as fakes real, between ROC points by linear interpolation."""
    false_positive, true_positive, _ = binary_roc(score, label)
    gap = (1 - true_positive) - false_positive
    last = int(torch.nonzero(gap >= 0)[-1])
    if last + 1 == len(gap):
        return float(false_positive[last])
    weight = gap[last] / (gap[last] - gap[last + 1])
    return float(false_positive[last] + weight * (false_positive[last + 1] - false_positive[last]))


def accuracy(score: Scores, label: Labels, threshold: float = 0.5) -> float:
    """The share of items on the right side of the threshold; a score equal to it counts as fake."""
    return float(((score >= threshold).long() == label).double().mean())


METRICS = {"auc": auc, "ap": average_precision, "eer": equal_error_rate, "acc": accuracy}
"""The metrics of a result table, by their short names."""
