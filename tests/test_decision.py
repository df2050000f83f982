"""What a score means: levels, percentiles and agreement with the tables of results."""

import json

import numpy as np
import polars as pl
import pytest

from fmsd.metrics.decision import QUANTILES, class_quantiles, score_meanings
from fmsd.metrics.score_meaning import selection_sentence, wilson
from fmsd.metrics.table import compute_results


def validation(videos: int = 40, frames: int = 6) -> pl.DataFrame:
    random = np.random.default_rng(0)
    label = np.arange(videos) % 2
    logit = (2 * label - 1)[:, None] + random.normal(size=(videos, frames))
    return pl.DataFrame(
        {
            "dataset": "faces",
            "video": np.repeat([f"v{number:03d}" for number in range(videos)], frames),
            "label": np.repeat(label, frames),
            "logit": logit.ravel().astype(np.float32),
        }
    )


def test_the_true_positive_rate_is_that_of_the_results() -> None:
    table = validation()
    results = compute_results(table, "iid")
    for level, meaning in score_meanings(table).items():
        for rate, metric in ((0.01, "tpr_1"), (0.05, "tpr_5")):
            (value,) = results.filter(level=level, metric=metric)["value"]
            assert meaning.points[rate].true_positive_rate[0] == pytest.approx(value)
        assert meaning.videos == (20, 20, 0)


def test_a_video_of_one_frame_is_counted_as_an_image() -> None:
    table = validation(videos=40, frames=1)
    assert score_meanings(table)["video"].videos.describe() == "20 real and 20 fake images"
    mixed = pl.concat([table, table.filter(pl.col("video") < "v010")])
    counts = score_meanings(mixed)["frame"].videos
    assert counts == (20, 20, 30)
    assert counts.describe("test") == "20 real and 20 fake test files (10 videos, 30 images)"
    assert (counts.noun_of("video"), counts.noun_of("frame")) == ("files", "frames")


def test_a_percentile_is_the_share_of_scores_at_or_below() -> None:
    table = validation()
    score = 1 / (1 + np.exp(-table["logit"].cast(pl.Float64).to_numpy()))
    real = score[table["label"].to_numpy() == 0]
    meaning = score_meanings(table)["frame"]
    for value in (0.0, float(np.median(real)), 0.77, 1.0):
        assert meaning.percentile(value, 0) == pytest.approx(100 * (real <= value).mean())


def test_many_scores_are_kept_as_quantiles() -> None:
    scores = np.random.default_rng(1).random(20_000)
    kept = class_quantiles(scores)
    assert len(kept) == QUANTILES
    for value in (0.013, 0.5, 0.98):
        exact = (scores <= value).mean()
        assert np.searchsorted(kept, value, side="right") / QUANTILES == pytest.approx(
            exact, abs=0.002
        )


def test_frames_of_one_video_under_two_orders_give_the_same_meaning() -> None:
    table = validation()
    shuffled = table.sample(fraction=1, shuffle=True, seed=3).sort("video", maintain_order=True)
    one, other = (score_meanings(rows)["video"].to_json() for rows in (table, shuffled))
    assert one["points"]["0.05"] == pytest.approx(other["points"]["0.05"])
    assert json.loads(json.dumps(one))["points"]["0.05"] == one["points"]["0.05"]


def test_renamed_videos_and_shuffled_rows_mean_the_same() -> None:
    table = validation()
    names = {f"v{number:03d}": f"w{(7 * number) % 40:03d}" for number in range(40)}
    other = table.with_columns(pl.col("video").replace(names))
    other = other.sample(fraction=1, shuffle=True, seed=1)
    one, two = (score_meanings(rows) for rows in (table, other))
    for level, meaning in one.items():
        assert meaning.calibration is not None
        assert meaning.to_json() == two[level].to_json()


def test_too_few_reals_or_no_fake_found_give_no_verdict() -> None:
    few = score_meanings(validation(videos=38))["video"]
    assert few.no_verdict(0.05).endswith("for fpr5: 19 of at least 20")
    enough = score_meanings(validation(videos=40))["video"]
    assert enough.no_verdict(0.05) == enough.no_verdict(0.1) == ""
    assert enough.no_verdict(0.01).endswith("for fpr1: 20 of at least 100")
    worst = validation().with_columns(logit=-pl.col("logit"))
    assert (
        score_meanings(worst)["video"]
        .no_verdict(0.1)
        .endswith("finds none of the validation fakes")
    )


def test_the_interval_of_a_rate_counts_videos_also_for_frames() -> None:
    meanings = score_meanings(validation(frames=6))
    for level, meaning in meanings.items():
        for rate, point in meaning.points.items():
            (false, low, high), (true, *_) = meaning.error_rates(rate)
            assert (false, true) == (point.false_positive_rate[0], point.true_positive_rate[0])
            assert (low, high) == pytest.approx(wilson(20 * false, 20))
            own = point.false_positive_rate[1:]
            if level == "frame":  # 120 frames of 20 videos
                assert low <= own[0]
                assert own[1] < high
            else:
                assert (low, high) == own


def test_the_choice_of_the_weights_is_said_in_one_sentence() -> None:
    assert "errors on new videos are somewhat higher" in selection_sentence("iid")
    assert "no data chose them" in selection_sentence("last")
    for rule in ("oracle", "search of oracle"):
        assert f"chosen on test data (select={rule})" in selection_sentence(rule)
