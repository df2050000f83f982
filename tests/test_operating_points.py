"""Thresholds at a fixed false positive rate: exhaustive search, ties and intervals."""

import math

import pytest
import torch

from fmsd.metrics.operating_points import operating_point
from fmsd.metrics.score_meaning import wilson


def count_errors(score: torch.Tensor, label: torch.Tensor, threshold: float) -> tuple[int, int]:
    called = score >= threshold
    return int((called & (label == 0)).sum()), int((called & (label == 1)).sum())


@pytest.mark.parametrize("rate", [0, 0.01, 0.05, 0.1, 0.5, 1])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_finds_more_fakes_at_that_rate(rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(90) % 3 // 2
    score = (torch.rand(90, generator=generator, dtype=torch.float64) + label).div(2)
    score = (score * 25).round() / 25  # with ties
    point = operating_point(score, label, rate)
    assert count_errors(score, label, point.threshold) == (
        point.false_positives,
        point.true_positives,
    )
    assert point.false_positives <= rate * point.reals
    allowed = [count_errors(score, label, t) for t in (*score.tolist(), 2.0)]
    most = max(found for wrong, found in allowed if wrong <= rate * point.reals)
    assert point.true_positives == most


def test_scores_that_are_rounded_keep_their_verdicts() -> None:
    score = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], dtype=torch.float64)
    point = operating_point(score, torch.tensor([0, 0, 0, 1, 1, 1]), 0.1)
    assert point.threshold == pytest.approx(0.5)
    assert point.true_positive_rate[0] == 1


@pytest.mark.parametrize("highest", [0.9, 1.0])
def test_a_real_item_with_the_highest_score_lies_below_the_threshold(highest: float) -> None:
    score = torch.tensor([highest, 0.5, 0.4], dtype=torch.float64)
    point = operating_point(score, torch.tensor([0, 0, 1]), 0.1)
    assert point.threshold == math.nextafter(highest, math.inf)
    assert (point.false_positives, point.true_positives) == (0, 0)


@pytest.mark.parametrize(("count", "total"), [(0, 20), (1, 20), (7, 300), (20, 20)])
def test_at_the_ends_of_the_interval_the_share_is_deviations_away(count: int, total: int) -> None:
    share = count / total
    for end in wilson(count, total):
        distance = 1.959964 * math.sqrt(end * (1 - end) / total)
        assert abs(end - share) == pytest.approx(distance, abs=1e-9)


def test_twenty_real_videos_cannot_show_one_per_cent() -> None:
    score = torch.linspace(0, 1, 40, dtype=torch.float64)
    point = operating_point(score, torch.arange(40) // 20, 0.01)
    rate, low, high = point.false_positive_rate
    assert (rate, low) == (0, 0)
    assert high > 0.1
