"""Calibration on other data: known in closed form, and blind to how many fakes there are."""

import numpy as np
import pytest
import torch

from fmsd.metrics.calibration import brier, expected_calibration_error
from fmsd.metrics.recalibration import balanced_brier, balanced_ece, recalibration
from fmsd.metrics.score_meaning import Calibration

Items = tuple[torch.Tensor, torch.Tensor]


def calibrated_items(count: int, seed: int = 0) -> Items:
    """Scores that are the probability of fake, both classes equally frequent."""
    rng = np.random.default_rng(seed)
    score = rng.beta(1.5, 1.5, count)
    label = (rng.random(count) < score).astype(np.int64)
    return torch.from_numpy(score), torch.from_numpy(label)


def logistic(value: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(value)


def test_where_the_calibration_holds_slope_intercept_and_errors_say_so() -> None:
    score, label = calibrated_items(40_000)
    raw = logistic((torch.logit(score) - 1) / 3)
    found = recalibration(Calibration("platt", 3, 1), raw, label)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.intercept == pytest.approx(0, abs=0.05)
    assert found.calibrated_ece < 0.02
    assert found.ece > 0.1
    assert found.calibrated_brier < found.brier
    assert found.calibrated_brier == pytest.approx(balanced_brier(score, label), abs=1e-9)


def test_a_shift_and_a_scale_of_the_scores_are_the_intercept_and_the_slope() -> None:
    score, label = calibrated_items(40_000, 1)
    shifted = logistic(2 * torch.logit(score) + 1)
    found = recalibration(Calibration("none"), shifted, label)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-0.5, abs=0.05)


def test_more_fakes_of_the_same_kind_change_nothing() -> None:
    score, label = calibrated_items(2_000, 2)
    fakes = label == 1
    more = torch.cat([score, *[score[fakes]] * 4]), torch.cat([label, *[label[fakes]] * 4])
    one = recalibration(Calibration("temperature", 0.7), score, label)
    other = recalibration(Calibration("temperature", 0.7), *more)
    for name in ("ece", "calibrated_ece", "brier", "calibrated_brier"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)
    assert one.slope == pytest.approx(other.slope, abs=0.02)


def test_with_equally_many_of_both_classes_errors_are_the_plain_ones() -> None:
    rng = np.random.default_rng(3)
    score = torch.from_numpy(rng.random(200))
    label = torch.from_numpy(np.repeat([0, 1], 100))
    assert balanced_ece(score, label) == pytest.approx(expected_calibration_error(score, label))
    assert balanced_brier(score, label) == pytest.approx(brier(score, label))


def test_separated_classes_have_finite_values() -> None:
    label = torch.from_numpy(np.repeat([0, 1], 20))
    found = recalibration(Calibration("none"), label.double() * 0.98 + 0.01, label)
    assert all(np.isfinite(list(vars(found).values())))
