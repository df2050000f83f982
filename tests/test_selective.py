"""Risk-coverage: equal to what it means for every order of equal items, and bounded."""

import itertools

import numpy as np
import pytest

from fmsd.metrics.selective import risk_coverage


def naive_area(wrong: list[int]) -> float:
    """AURC of verdicts in an order, the most certain one first."""
    return float(np.mean([np.mean(wrong[:place]) for place in range(1, len(wrong) + 1)]))


def test_equally_certain_items_count_as_the_mean_over_all_their_orders() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        score = rng.choice([0.1, 0.3, 0.5, 0.7, 0.9], 6)
        label = rng.integers(0, 2, 6)
        wrong = ((score >= 0.5) != (label == 1)).astype(int)
        certainty = np.abs(score - 0.5)
        areas = [
            naive_area([wrong[item] for item in order])
            for order in itertools.permutations(range(6))
            if (np.diff(certainty[list(order)]) <= 0).all()
        ]
        assert risk_coverage(score, label).area == pytest.approx(np.mean(areas), abs=1e-12)


def test_the_excess_is_that_over_the_best_order_and_zero_for_it() -> None:
    rng = np.random.default_rng(1)
    score, label = rng.random(30), rng.integers(0, 2, 30)
    found = risk_coverage(score, label, 0.4)
    wrong = ((score >= 0.4) != (label == 1)).astype(int)
    assert found.excess == pytest.approx(found.area - naive_area(sorted(wrong)), abs=1e-12)
    best = np.array([0.95, 0.1, 0.8, 0.55]), np.array([1, 0, 1, 0])
    assert risk_coverage(*best).excess == pytest.approx(0, abs=1e-15)


def test_at_full_coverage_the_risk_is_the_error_rate_and_without_errors_the_area_is_zero() -> None:
    rng = np.random.default_rng(2)
    score, label = rng.random(50), rng.integers(0, 2, 50)
    found = risk_coverage(score, label)
    assert found.risk[-1] == pytest.approx(np.mean((score >= 0.5) != (label == 1)))
    assert found.coverage[0] == pytest.approx(1 / 50)
    assert found.coverage[-1] == 1
    assert risk_coverage(label * 0.8 + 0.1, label).area == 0


def test_a_certainty_that_says_nothing_gives_the_error_rate() -> None:
    found = risk_coverage(np.full(40, 0.9), np.repeat([0, 1], [10, 30]))
    np.testing.assert_allclose(found.risk, 0.25)
    assert found.area == pytest.approx(0.25)
