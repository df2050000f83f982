"""Scores of any scale as logits: what the map keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmsd.metrics.ranking import METRICS
from fmsd.metrics.score_scale import (
    SATURATED,
    SCALES,
    as_logits,
    count_tied,
    scale_metrics,
    score_bounds,
)

FINITE = st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=30).map(np.array)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logit))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array))
def test_probabilities_come_back(values: np.ndarray) -> None:
    logits = as_logits(values, "probability", "fake")
    assert np.isfinite(logits).all()
    assert sigmoid(logits) == pytest.approx(values, rel=1e-12, abs=1e-300)
    ends = as_logits(np.array([0.0, 1.0]), "probability", "fake")
    assert sigmoid(ends).tolist() == [0, 1]


@given(FINITE)
def test_scores_of_any_scale_keep_their_order_and_the_order_of_their_means(
    values: np.ndarray,
) -> None:
    share = sigmoid(as_logits(values, "score", "fake"))
    low, high = values.min(), values.max()
    assert share.min() >= 0.25 - 1e-15
    assert share.max() <= 0.75 + 1e-15
    place = np.full(len(values), 0.5)
    if low < high:
        place = (values / 2 - low / 2) / (high / 2 - low / 2)
    assert share == pytest.approx(0.25 + place / 2 if low < high else place, abs=1e-14)
    assert share.mean() == pytest.approx(0.25 + place.mean() / 2 if low < high else 0.5, abs=1e-14)


@pytest.mark.parametrize("scale", SCALES)
def test_the_other_polarity_is_the_mirror_image(scale: str) -> None:
    values = np.array([0.1, 0.4, np.nan, 0.9])
    fake = as_logits(values, scale, "fake")  # pyright: ignore[reportArgumentType]
    real = as_logits(values, scale, "real")  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(fake, -real)
    assert np.isnan(fake).tolist() == [False, False, True, False]


def test_what_has_no_logit_is_nan() -> None:
    odd = np.array([-0.1, 1.1, np.inf, -np.inf, np.nan])
    assert np.isnan(as_logits(odd, "probability", "fake")).all()
    assert np.isnan(as_logits(odd[2:], "logit", "fake")).all()
    assert np.isnan(as_logits(odd[2:], "score", "fake", (0, 1))).all()


def test_the_bounds_are_those_of_all_datasets() -> None:
    parts = [np.array([3.0, np.nan]), np.array([]), np.array([-2.0, np.inf])]
    assert score_bounds(parts) == (-2, 3)
    assert score_bounds([np.array([np.nan])]) is None
    assert score_bounds([]) is None


def test_logits_whose_probabilities_tie_are_counted() -> None:
    assert count_tied(np.array([50.0, 60.0, 60.0, 70.0, 3.0, np.nan])) == 2
    assert count_tied(np.array([50.0, 50.0])) == count_tied(np.array([])) == 0
    assert sigmoid(np.array([SATURATED]))[0] == 1
    low = np.array([-700.0, -600.0, 30.0, 36.0])
    assert count_tied(low) == 0
    assert len({*sigmoid(low)}) == 4


def test_scores_without_a_scale_have_the_metrics_of_ranks_alone() -> None:
    ranks = scale_metrics("score") or []
    assert {*METRICS}.difference(ranks) == {"acc", "bacc", "brier", "ece"}
    assert scale_metrics("logit") is scale_metrics("probability") is None
