"""Scores of any scale as logits: what the map keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fmsd.metrics.ranking import METRICS, scale_metrics
from fmsd.metrics.score_scale import (
    SCALES,
    STEP,
    as_logits,
    count_crowded,
    count_ties,
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
def test_scores_of_any_scale_keep_the_order_of_their_means(values: np.ndarray) -> None:
    share = sigmoid(as_logits(values, "score", "fake"))
    low, high = values.min(), values.max()
    assert 0.25 - 1e-15 <= share.min() <= share.max() <= 0.75 + 31 * STEP
    place = np.full(len(values), 0.5)
    if low < high:
        place = (values - low) / (high - low)
    wanted = 0.25 + place / 2 if low < high else place
    assert share == pytest.approx(wanted, abs=31 * STEP)
    assert share.mean() == pytest.approx(wanted.mean(), abs=31 * STEP)


ANY = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


@given(ANY.map(np.array), st.sampled_from(["fake", "real"]))
def test_scores_without_a_scale_are_ranked_exactly(values: np.ndarray, higher: str) -> None:
    share = sigmoid(as_logits(values, "score", higher))  # pyright: ignore[reportArgumentType]
    found, wanted = (np.unique(each, return_inverse=True)[1] for each in (share, values))
    np.testing.assert_array_equal(found, wanted if higher == "fake" else wanted.max() - wanted)


def test_an_outlier_erases_no_ranking_and_many_scores_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    for scores in (
        np.append(rng.normal(size=100_000), 1e30),
        np.append(rng.normal(size=1000), [-1e300, 1e300]),
        10.0 ** rng.uniform(-300, 0, 1000),
    ):
        label = rng.integers(0, 2, len(scores))
        share = sigmoid(as_logits(scores, "score", "fake"))
        assert roc_auc_score(label, share) == roc_auc_score(label, scores)
        assert count_crowded(scores) > 0.9 * len(scores)
    assert count_crowded(rng.normal(size=100_000)) == 0
    assert count_crowded(np.array([1.0, 1.0, np.nan, 2.0])) == count_crowded(np.empty(0)) == 0


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
    assert np.isnan(as_logits(odd, "score", "fake")).tolist() == [False, False, True, True, True]


def test_scores_whose_probabilities_tie_are_counted() -> None:
    for values, wanted in (
        ([50.0, 60.0, 60.0, 70.0, 3.0, np.nan], (4, 2)),
        ([50.0, 50.0], (1, 0)),
        ([], (0, 0)),
        ([-700.0, -600.0, 30.0, 36.0], (4, 0)),
        ([36.9, 37.0], (2, 1)),
    ):
        logits = as_logits(np.array(values), "logit", "fake")
        assert count_ties(np.array(values), logits) == wanted


def test_scores_without_a_scale_have_the_metrics_of_ranks_alone() -> None:
    ranks = scale_metrics("score") or []
    assert {*METRICS}.difference(ranks) == {"acc", "bacc", "brier", "ece"}
    assert scale_metrics("logit") is scale_metrics("probability") is None
