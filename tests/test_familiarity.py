"""Distances from the validation data: a naive oracle, and what they tell apart."""

import numpy as np
import pytest

from fmsd.inference.familiarity import LIMIT, fit_bank
from fmsd.runs.validation_features import unit


def clusters(videos: int, frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a video lie close together, and videos around one direction."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(videos, 1, 16)) + np.eye(16)[0] * 6
    frames_ = centres + 0.05 * random.normal(size=(videos, frames, 16))
    return frames_.reshape(-1, 16), np.repeat(np.arange(videos), frames)


def test_the_distance_is_that_to_the_kth_neighbour_of_another_video() -> None:
    features, video = clusters(12, 5)
    bank = fit_bank(features, video)
    assert bank is not None
    vectors = unit(features)
    expected = []
    for vector, own in zip(vectors, video, strict=True):
        apart = np.sort(np.linalg.norm(vectors[video != own] - vector, axis=1))
        expected.append(apart[bank.neighbours - 1])
    assert bank.limit == pytest.approx(np.quantile(expected, LIMIT), rel=1e-4)


def test_frames_like_those_of_validation_are_usual_and_others_are_not() -> None:
    bank = fit_bank(*clusters(100, 4))
    assert bank is not None
    like, _ = clusters(100, 4, seed=1)
    assert (bank.distance(like) > bank.limit).mean() < 0.1
    other = like @ np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))[0]
    assert (bank.distance(other) > bank.limit).all()


def test_lengths_of_features_do_not_count() -> None:
    features, video = clusters(10, 3)
    bank = fit_bank(features, video)
    assert bank is not None
    assert bank.distance(7 * features) == pytest.approx(bank.distance(features), abs=1e-3)


@pytest.mark.parametrize(("videos", "frames"), [(2, 1), (2, 3), (3, 1)])
def test_few_videos_are_enough_and_one_is_not(videos: int, frames: int) -> None:
    bank = fit_bank(*clusters(videos, frames))
    assert bank is not None
    assert 0 < bank.limit < 2
    assert fit_bank(*clusters(1, 5)) is None
