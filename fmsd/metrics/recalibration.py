"""What a calibration fitted on validation data is worth on a test set.

Real and fake items weigh equally, as in the fit of the calibration (`fmsd.metrics.post_hoc`):
otherwise the errors would above all show how many fakes a test set happens to have.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from fmsd.metrics.calibration import BINS, bin_indices
from fmsd.metrics.post_hoc import calibrate, fit_line, logits
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.score_meaning import Calibration


@dataclass(frozen=True)
class Recalibration:
    """Errors of calibration on a test set, before and after a calibration.

    Args:
        ece, calibrated_ece: the expected calibration error.
        brier, calibrated_brier: the Brier score.
        slope, intercept: of the logistic regression of the label on the calibrated logit: 1 and 0
            where the calibration holds. A slope below 1: too certain; an intercept above 0: fakes
            are more likely than it says. D. R. Cox, Two Further Applications of a Model for Binary
            Regression, Biometrika, 1958.
    """

    ece: float
    calibrated_ece: float
    brier: float
    calibrated_brier: float
    slope: float
    intercept: float


def recalibration(calibration: Calibration, score: Scores, label: Labels) -> Recalibration:
    """The errors of scores and of their calibrated probabilities, each class with half the weight.

    The regression has Platt's smoothed targets, so that its slope is finite where the classes are
    separated, and its slope is not below 0, see `fmsd.metrics.post_hoc.fit_line`.

    Args:
        score: probabilities of fake of both classes.
    """
    calibrated = calibrate(calibration, score)
    return Recalibration(
        balanced_ece(score, label),
        balanced_ece(calibrated, label),
        balanced_brier(score, label),
        balanced_brier(calibrated, label),
        *fit_line(logits(calibrated), label, offset=True),
    )


def class_weights(label: Labels) -> Float64[Tensor, " items"]:
    """Weights of items that sum to one half for each class."""
    return (0.5 / torch.bincount(label, minlength=2).double())[label]


def balanced_brier(score: Scores, label: Labels) -> float:
    """The mean of the Brier scores of both classes."""
    return float((class_weights(label) * (score.double() - label).square()).sum())


def balanced_ece(score: Scores, label: Labels) -> float:
    """The expected calibration error of items that weigh half for each class, see `calibration`."""
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, bin_indices(score), class_weights(label) * (score.double() - label))
    return float(gaps.abs().sum())
