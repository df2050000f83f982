"""Seeds and videos resampled together: equal to drawing both, and wider where seeds differ."""

import numpy as np
import pytest

from fmsd.metrics.hierarchical import MIN_SEEDS, resample_seeds
from fmsd.metrics.interval import percentile_interval


def test_equal_seeds_change_nothing_and_few_are_not_drawn() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(200)
    np.testing.assert_allclose(resample_seeds([values] * 5, "a"), values)
    two = rng.random((MIN_SEEDS - 1, 200))
    np.testing.assert_allclose(resample_seeds(list(two), "a"), two.mean(0))
    np.testing.assert_array_equal(resample_seeds([values], "a"), values)


def test_a_resample_is_a_mean_of_drawn_seeds_on_the_same_videos() -> None:
    seeds = [np.full(500, float(10**place)) for place in range(3)]
    found = resample_seeds(seeds, "a") * 3
    digits = {tuple(int(value / 10**place) % 10 for place in range(3)) for value in found.round()}
    assert all(sum(counts) == 3 for counts in digits)
    assert len(digits) == 10  # all multisets of three of three
    videos = np.arange(500.0)
    np.testing.assert_allclose(
        resample_seeds([seed + videos for seed in seeds], "a"), found / 3 + videos
    )


def test_the_variances_of_seeds_and_of_videos_add_up() -> None:
    rng = np.random.default_rng(1)
    effects, videos = rng.normal(0, 2, 6), rng.normal(0, 0.5, 40_000)
    found = resample_seeds([effect + videos for effect in effects], "a")
    assert found.var() == pytest.approx(effects.var() / 6 + videos.var(), rel=0.03)
    assert found.mean() == pytest.approx(effects.mean(), abs=0.02)


def test_rows_draw_independently_and_datasets_of_a_row_alike() -> None:
    rng = np.random.default_rng(2)
    seeds = [np.full(20_000, value) for value in rng.normal(size=4)]
    one, again, other = (resample_seeds(seeds, row) for row in ("a", "a", "b"))
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_the_interval_holds_the_mean_of_all_seeds_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(300):
        seeds = rng.normal(0, 1, 10)
        videos = rng.normal(0, 0.3)
        resampled = rng.normal(0, 0.3, 400)
        samples = [seed + videos + resampled for seed in seeds]
        low, high = percentile_interval(resample_seeds(samples, str(trial)))
        covered += low <= 0 <= high
    assert 0.87 <= covered / 300 <= 0.98
