"""Calibration against torchmetrics and scikit-learn, and what a reliability diagram must say."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from fmsd.metrics.calibration import bin_indices, brier, expected_calibration_error, reliability


def items(seed: int, count: int = 500, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn with the very probabilities that are then sharpened into scores; 1 leaves them
    calibrated.
    """
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, count)
    label = rng.random(count) < 1 / (1 + np.exp(-logit))
    return torch.from_numpy(1 / (1 + np.exp(-sharpness * logit))), torch.from_numpy(
        label.astype(np.int64)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 5.0])
def test_the_numbers_equal_their_oracles(seed: int, sharpness: float) -> None:
    score, label = items(seed, sharpness=sharpness)
    assert brier(score, label) == pytest.approx(brier_score_loss(label, score), abs=1e-12)
    for bins in (1, 10, 15):
        theirs = binary_calibration_error(score, label, n_bins=bins, norm="l1").item()
        assert expected_calibration_error(score, label, bins) == pytest.approx(theirs, abs=1e-12)
    fakes, means = calibration_curve(label, score, n_bins=15)
    held = reliability(score, label).drop_nulls()
    np.testing.assert_allclose(held["fakes"], fakes, atol=1e-12)
    np.testing.assert_allclose(held["score"], means, atol=1e-12)


def test_a_reliability_diagram_by_hand() -> None:
    score = torch.tensor([0.0, 0.1, 0.25, 0.3, 1.0], dtype=torch.float64)
    table = reliability(score, torch.tensor([0, 1, 0, 1, 1]), bins=4)
    assert table.columns == ["low", "high", "score", "fakes", "count"]
    assert table.rows() == [
        (0.0, 0.25, 0.05, 0.5, 2),
        (0.25, 0.5, 0.275, 0.5, 2),
        (0.5, 0.75, None, None, 0),
        (0.75, 1.0, 1.0, 1.0, 1),
    ]
    assert expected_calibration_error(
        score, torch.tensor([0, 1, 0, 1, 1]), bins=4
    ) == pytest.approx((2 * 0.45 + 2 * 0.225) / 5)


@pytest.mark.parametrize("bins", [1, 3, 7, 10, 15])
def test_every_probability_lies_in_its_bin(bins: int) -> None:
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    score = torch.cat(
        [
            edges,
            edges.nextafter(torch.zeros(1).double()),
            edges.nextafter(torch.ones(1).double()),
            items(0)[0],
        ]
    )
    table = reliability(score, torch.zeros(len(score), dtype=torch.int64), bins)
    place = bin_indices(score, bins).numpy()
    low, high = table["low"].to_numpy()[place], table["high"].to_numpy()[place]
    assert (
        (low <= score.numpy()) & ((score.numpy() < high) | (score.numpy() == high) & (high == 1))
    ).all()
    assert table["count"].sum() == len(score)


def test_scores_that_mean_what_they_say_are_calibrated_and_sharpened_ones_are_not() -> None:
    errors = {
        sharpness: expected_calibration_error(*items(0, 50_000, sharpness))
        for sharpness in (0.3, 1.0, 3.0)
    }
    assert errors[1.0] < 0.01
    assert min(errors[0.3], errors[3.0]) > 0.1
    briers = {sharpness: brier(*items(0, 50_000, sharpness)) for sharpness in (0.3, 1.0, 3.0)}
    assert briers[1.0] < min(briers[0.3], briers[3.0])
