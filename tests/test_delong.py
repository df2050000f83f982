"""DeLong's variances: those of a naive reference, and right as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import kstest, norm, rankdata
from sklearn.metrics import roc_auc_score

from fmsd.metrics.delong import (
    Placements,
    auc_interval,
    covariance,
    mean_placements,
    midranks,
    paired_test,
    placements,
)

Classes = tuple[np.ndarray, np.ndarray]


def naive(detectors: list[Classes]) -> tuple[np.ndarray, np.ndarray]:
    """AUCs and their covariances by the kernel of every pair of a real and a fake item."""
    kernels = [
        (fake[:, None] > real).astype(float) + 0.5 * (fake[:, None] == real)
        for real, fake in detectors
    ]
    fakes, reals = kernels[0].shape
    aucs = np.array([kernel.mean() for kernel in kernels])
    total = np.zeros((len(kernels), len(kernels)))
    for axis, count in ((1, fakes), (0, reals)):
        parts = np.array([kernel.mean(axis) for kernel in kernels])
        for one in range(len(kernels)):
            for other in range(len(kernels)):
                total[one, other] += sum(
                    (parts[one, item] - aucs[one]) * (parts[other, item] - aucs[other])
                    for item in range(count)
                ) / ((count - 1) * count)
    return aucs, total


def drawn(rng: np.random.Generator, reals: int, fakes: int, ties: bool, shift: float) -> Classes:
    scores = rng.normal(0, 1, reals), rng.normal(shift, 1.3, fakes)
    return (scores[0].round(), scores[1].round()) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("reals", "fakes"), [(2, 2), (7, 30), (40, 13)])
def test_variances_and_covariances_are_those_of_all_pairs(
    reals: int, fakes: int, ties: bool
) -> None:
    rng = np.random.default_rng(reals)
    detectors = [drawn(rng, reals, fakes, ties, shift) for shift in (0.0, 0.5, 2.0)]
    aucs, expected = naive(detectors)
    found = [placements(*scores) for scores in detectors]
    np.testing.assert_allclose([one.auc for one in found], aucs, atol=1e-12)
    np.testing.assert_allclose([one.real.mean() for one in found], aucs, atol=1e-12)
    np.testing.assert_allclose(
        [[covariance(one, other) for other in found] for one in found], expected, atol=1e-12
    )
    for one in range(3):
        for other in range(3):
            test = paired_test([(found[one], found[other])])
            variance = (
                expected[one, one] + expected[other, other] - expected[one, other] * 2
                if one != other
                else 0
            )
            assert test.error**2 == pytest.approx(variance, abs=1e-12)
            assert test.value == pytest.approx(aucs[one] - aucs[other], abs=1e-12)
            if test.error > 1e-6:
                p = 2 * norm.sf(abs(test.value) / test.error)
                assert test.p == pytest.approx(p, abs=1e-9)


def test_auc_and_midranks_are_those_of_other_libraries() -> None:
    rng = np.random.default_rng(0)
    real, fake = drawn(rng, 50, 70, True, 1)
    labels = np.repeat([0, 1], [50, 70])
    scores = np.concatenate([real, fake])
    assert placements(real, fake).auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-15)
    np.testing.assert_array_equal(midranks(scores), rankdata(scores))


def test_the_variance_of_separated_and_of_equal_scores_is_zero_and_the_interval_a_point() -> None:
    for real, fake, auc in (([0, 1], [2, 3], 1.0), ([2, 3], [0, 1], 0.0), ([1, 1], [1, 1], 0.5)):
        found = placements(np.array(real, float), np.array(fake, float))
        assert (found.auc, found.variance) == (auc, 0)
        assert auc_interval(found.auc, found.variance) == pytest.approx((auc, auc))


def test_the_interval_stays_within_0_and_1_and_mirrors_when_classes_are_exchanged() -> None:
    for auc in (0.001, 0.2, 0.5, 0.97, 0.9999):
        for variance in (1e-9, 1e-3, 0.2):
            low, high = auc_interval(auc, variance)
            assert 0 <= low <= auc <= high <= 1
            mirrored = auc_interval(1 - auc, variance)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_one_item_of_a_class_has_no_variance_and_no_p() -> None:
    one = placements(np.array([0.1]), np.array([0.2, 0.3, 0.05]))
    other = placements(np.array([0.1]), np.array([0.2, 0.3, 0.4]))
    assert math.isnan(one.variance)
    assert math.isnan(paired_test([(one, other)]).p)


def test_equal_detectors_have_p_1_and_opposite_certain_ones_have_none() -> None:
    rng = np.random.default_rng(1)
    one = placements(*drawn(rng, 20, 20, False, 1))
    assert paired_test([(one, one)]) == (0, 0, 1)
    right = Placements(np.ones(5), np.ones(5))
    wrong = Placements(np.zeros(5), np.zeros(5))
    assert math.isnan(paired_test([(right, wrong)]).p)


def test_a_mean_over_detectors_and_datasets_is_a_contrast_of_their_covariances() -> None:
    rng = np.random.default_rng(2)
    variances, values, pairs = [], [], []
    for reals, fakes in ((12, 20), (30, 9)):
        detectors = [drawn(rng, reals, fakes, True, shift) for shift in (0.0, 0.5, 1.0, 0.2)]
        aucs, matrix = naive(detectors)
        contrast = np.array([0.5, 0.5, -0.5, -0.5])
        values.append(contrast @ aucs)
        variances.append(contrast @ matrix @ contrast)
        parts = [placements(*scores) for scores in detectors]
        pairs.append((mean_placements(parts[:2]), mean_placements(parts[2:])))
    test = paired_test(pairs)
    assert test.value == pytest.approx(np.mean(values), abs=1e-12)
    assert test.error == pytest.approx(math.sqrt(sum(variances)) / 2, abs=1e-12)


def test_p_is_uniform_for_equally_good_detectors_and_95_percent_of_intervals_hold() -> None:
    rng = np.random.default_rng(3)
    p, covered = [], 0
    truth = norm.cdf(1 / math.sqrt(2))
    for _ in range(400):
        shared_real, shared_fake = rng.normal(0, 0.8, 60), rng.normal(1, 0.8, 80)
        pair = [
            placements(shared_real + rng.normal(0, 0.6, 60), shared_fake + rng.normal(0, 0.6, 80))
            for _ in range(2)
        ]
        p.append(paired_test([(pair[0], pair[1])]).p)
        low, high = auc_interval(pair[0].auc, pair[0].variance)
        covered += low <= truth <= high
    assert kstest(p, "uniform").pvalue > 0.01
    assert 0.92 <= covered / 400 <= 0.98
