"""The bootstrap over videos: equal to resamples that are really made, in doubt as often as it says,
and paired.
"""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from scipy.optimize import root_scalar
from scipy.stats import norm
from sklearn import metrics as sklearn
from torchmetrics.functional.classification import binary_calibration_error

from fmsd.errors import InputError
from fmsd.metrics import interval as intervals
from fmsd.metrics.interval import (
    Draws,
    draw_counts,
    paired_difference,
    percentile_interval,
    resample_metrics,
    weighted_metrics,
)
from fmsd.metrics.ranking import METRICS, THRESHOLD_METRICS, curve_auc
from fmsd.metrics.table import LEVELS, compute_results, with_scores
from fmsd.metrics.video import aggregate_videos, group_by_folder
from fmsd.metrics.video_pairs import resampled_auc

NAMES = [*METRICS, *THRESHOLD_METRICS]


def draws(seed: int, ties: bool, counts: Callable[[int], np.ndarray], mixed: bool = False) -> Draws:
    """Frames of 30 videos of one to six frames; in a mixed one some frames of a real video are
    fake.
    """
    rng = np.random.default_rng(seed)
    video = np.repeat(np.arange(30), rng.integers(1, 7, 30))
    label = (video % 2) | (mixed & (video % 4 == 0) & (rng.random(len(video)) < 0.5))
    score = np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1)
    parts = (
        score.round(1) if ties else score,
        label.astype(np.int64),
        video,
        counts(30).astype(np.uint8),
    )
    return Draws(*map(torch.from_numpy, parts))


def naive(score: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Every metric by other libraries, but for points of the ROC curve that are looked up."""
    false_positive, true_positive, _ = sklearn.roc_curve(label, score, drop_intermediate=False)
    called = {"": score >= 0.5, "_val": score >= threshold}
    return {
        "auc": sklearn.roc_auc_score(label, score),
        "ap": sklearn.average_precision_score(label, score),
        "eer": root_scalar(
            lambda x: 1 - x - np.interp(x, false_positive, true_positive),
            bracket=(0, 1),
            xtol=1e-15,
        ).root,
        **{
            f"tpr_{percent:g}": true_positive[false_positive <= percent / 100].max()
            for percent in (0.1, 1, 5)
        },
        **{f"acc{which}": sklearn.accuracy_score(label, fake) for which, fake in called.items()},
        **{
            f"bacc{which}": sklearn.balanced_accuracy_score(label, fake)
            for which, fake in called.items()
        },
        "brier": sklearn.brier_score_loss(label, score),
        "ece": binary_calibration_error(
            torch.from_numpy(score), torch.from_numpy(label), n_bins=15
        ).item(),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_counts_of_one_are_the_items_themselves(ties: bool, mixed: bool) -> None:
    sample = draws(0, ties, lambda videos: np.ones((3, videos)), mixed)
    found = weighted_metrics(sample, NAMES, 0.4)
    for name in NAMES:
        items = sample.score, sample.label
        expected = (
            THRESHOLD_METRICS[name](*items, 0.4)
            if name in THRESHOLD_METRICS
            else METRICS[name](*items)
        )
        np.testing.assert_allclose(found[name], [expected] * 3, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("block", [1, 2**19])
def test_weights_equal_repeated_rows(
    ties: bool, mixed: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "BLOCK", block)
    rng = np.random.default_rng(1)
    sample = draws(
        1,
        ties,
        lambda videos: np.concatenate(
            [rng.multinomial(videos, [1 / videos] * videos, 20), rng.integers(3, 9, (20, videos))]
        ),
        mixed,
    )
    found = weighted_metrics(sample, NAMES, 0.4)
    assert list(found) == NAMES
    for number, counts in enumerate(sample.counts.numpy().astype(int)):
        times = counts[sample.video]
        expected = naive(
            np.repeat(sample.score.numpy(), times), np.repeat(sample.label.numpy(), times), 0.4
        )
        assert {name: samples[number] for name, samples in found.items()} == pytest.approx(
            expected, abs=1e-11
        )


def test_as_many_reals_and_fakes_are_drawn_as_there_are() -> None:
    fake = np.random.default_rng(0).random(50) < 0.3
    counts = draw_counts(fake, 4000, 0).numpy().T
    assert set(counts[fake].sum(0)) == {fake.sum()}
    assert set(counts[~fake].sum(0)) == {(~fake).sum()}
    for own in (
        counts[fake],
        counts[~fake],
    ):  # multinomial: mean 1, variance 1 - 1/n, covariance -1/n
        n = len(own)
        np.testing.assert_allclose(own.mean(1), 1, atol=0.08)
        np.testing.assert_allclose(np.cov(own), np.eye(n) - 1 / n, atol=0.15)
    assert (draw_counts(fake, 40, 0) == draw_counts(fake, 40, 0)).all()
    assert (draw_counts(fake, 40, 0) != draw_counts(fake, 40, 1)).any()


def predictions(
    seed: int,
    videos: int = 40,
    shift: float = 1.0,
    spread: float = 1.0,
    noise: float = 1.0,
    frames: int = 4,
) -> pl.DataFrame:
    """Binormal frames that share their video's effect; every other video is fake."""
    rng = np.random.default_rng(seed)
    video = np.repeat(np.arange(videos), frames)
    logit = (
        shift * (video % 2)
        + spread * rng.normal(size=videos)[video]
        + noise * rng.normal(size=len(video))
    )
    columns = {
        "dataset": "d",
        "domain": np.where(video % 2, "swap", "real"),
        "label": video % 2,
        "logit": logit,
    }
    return pl.DataFrame(columns).with_columns(
        pl.Series(
            "video", [f"d/{'swap' if number % 2 else 'real'}/{number // 2}" for number in video]
        )
    )


@pytest.mark.parametrize("level", LEVELS)
def test_predictions_are_resampled_by_video_whatever_the_order_of_their_rows(level: str) -> None:
    frames = predictions(2)
    found = resample_metrics(frames, NAMES, level, 12, seed=3, video_score="top2", threshold=0.6)
    videos = aggregate_videos(with_scores(frames), "top2").sort("video")
    times = draw_counts((videos["label"] == 1).to_numpy(), 12, 3).numpy().T.astype(int)
    items = with_scores(frames) if level == "frame" else videos
    place = {name: number for number, name in enumerate(videos["video"])}
    row = np.array([place[name] for name in items["video"]])
    for number in range(12):
        repeats = times[row, number]
        expected = naive(
            np.repeat(items["score"].to_numpy(), repeats),
            np.repeat(items["label"].to_numpy(), repeats),
            0.6,
        )
        assert {name: samples[number] for name, samples in found.items()} == pytest.approx(
            expected, abs=1e-11
        )
    shuffled = resample_metrics(
        frames.sample(fraction=1, shuffle=True, seed=0),
        NAMES,
        level,
        12,
        seed=3,
        video_score="top2",
        threshold=0.6,
    )
    for name, samples in found.items():
        np.testing.assert_allclose(shuffled[name], samples, atol=1e-12)


def test_videos_that_share_a_name_are_one_and_count_as_real_where_one_is() -> None:
    frames = predictions(4).with_columns(
        video=pl.col("video").str.replace("d/swap/1", "d/swap/x1")
    )  # 11 fakes keep names of their own
    grouped = group_by_folder(with_scores(frames))
    mixed = grouped.group_by("video").agg(pl.col("label").n_unique())["label"].max()
    assert (mixed, grouped["video"].n_unique()) == (2, 31)
    for level in LEVELS:
        found = resample_metrics(frames, NAMES, level, 5, naming="folder", threshold=0.5)
        same = resample_metrics(grouped.drop("score"), NAMES, level, 5, threshold=0.5)
        assert all(
            (found[name] == same[name]).all() and np.isfinite(found[name]).all() for name in NAMES
        )
    with pytest.raises(InputError, match="Every fake video of d bears the name of a real one"):
        resample_metrics(predictions(4), ["auc"], "frame", naming="folder")


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says_and_one_over_frames_does_not() -> None:
    """Frames of a video are alike: intervals over independent frames are far too narrow."""
    truth = norm.cdf(1 / math.sqrt(2 * (1 + 0.5**2)))
    held: dict[str, list[bool]] = {"videos": [], "frames": []}
    for seed in range(200):
        frames = predictions(seed, videos=100, noise=0.5)
        apart = frames.with_columns(video=pl.format("{}/{}", "video", pl.int_range(pl.len())))
        for what, table in {"videos": frames, "frames": apart}.items():
            low, high = percentile_interval(
                resample_metrics(table, ["auc"], "frame", 300, seed)["auc"]
            )
            held[what].append(bool(low <= truth <= high))
    assert 0.9 <= np.mean(held["videos"]) <= 0.985
    assert np.mean(held["frames"]) < 0.8


def test_an_interval_leaves_out_equal_shares() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert percentile_interval(samples) == pytest.approx((25, 975))
    assert percentile_interval(samples, 0.5) == pytest.approx((250, 750))
    observed = (
        compute_results(predictions(0), "iid").filter(level="video", metric="auc")["value"].item()
    )
    low, high = percentile_interval(resample_metrics(predictions(0), ["auc"], "video")["auc"])
    assert low < observed < high


def test_identical_runs_do_not_differ_and_a_clearly_better_one_does() -> None:
    one, same = (resample_metrics(predictions(0), ["auc"], "frame", 199)["auc"] for _ in range(2))
    assert paired_difference(one, same, 0.0) == (0.0, 0.0, 0.0, 1.0)
    better = resample_metrics(predictions(0, shift=4), ["auc"], "frame", 199)["auc"]
    difference = paired_difference(better, one, 0.2)
    assert difference.value == 0.2
    assert difference.low > 0
    assert difference.p == pytest.approx(2 / 200)
    turned = paired_difference(one, better, -0.2)
    assert (turned.low, turned.high, turned.p) == pytest.approx(
        (-difference.high, -difference.low, difference.p)
    )


def test_pairing_narrows_what_two_runs_differ_by() -> None:
    frames = predictions(5)
    other = frames.with_columns(
        logit=pl.col("logit") + pl.Series(np.random.default_rng(6).normal(0, 0.3, frames.height))
    )
    one = resample_metrics(frames, ["auc"], "video")["auc"]
    together, apart = (
        paired_difference(one, resample_metrics(other, ["auc"], "video", seed=seed)["auc"], 0.0)
        for seed in (0, 1)
    )
    assert together.high - together.low < (apart.high - apart.low) / 2


@pytest.mark.slow
def test_runs_that_are_equally_good_differ_significantly_as_often_as_p_says() -> None:
    small = 0
    for seed in range(200):
        rng, frames = (
            np.random.default_rng([seed, 1]),
            predictions(seed, videos=80, noise=0, frames=1),
        )
        both = (
            frames.with_columns(
                logit=pl.col("logit") + pl.Series(rng.normal(0, 0.7, frames.height))
            )
            for _ in range(2)
        )
        one, other = (resample_metrics(run, ["auc"], "video", 299)["auc"] for run in both)
        small += paired_difference(one, other, 0.0).p < 0.1
    assert 0.05 <= small / 200 <= 0.16


def test_one_video_of_a_class_does_not_vary() -> None:
    frames = predictions(7, shift=0).filter(
        (pl.col("label") == 0) | (pl.col("video") == "d/swap/3")
    )
    alone = frames.filter((pl.col("label") == 1) | (pl.col("video") == "d/real/3"))
    for level in LEVELS:
        assert np.ptp(resample_metrics(frames, ["auc"], level, 50)["auc"]) > 0
        assert np.ptp(resample_metrics(alone, ["auc"], level, 50)["auc"]) == 0


def test_what_cannot_be_resampled_is_refused() -> None:
    frames = predictions(0)
    two = pl.concat([frames, frames.with_columns(dataset=pl.lit("e"))])
    for table, metric, level, video_score, sentence in (
        (frames, "f1", "video", "mean", "metric=f1 is unknown; choose one of auc, ap,"),
        (
            frames,
            "bacc_val",
            "video",
            "mean",
            "metric=bacc_val needs the threshold that validation data chose, and there is none; "
            "choose bacc.",
        ),
        (frames, "auc", "clip", "mean", "level=clip is unknown; choose one of frame, video."),
        (frames, "auc", "video", "mode", "data.video_score=mode is unknown"),
        (two, "auc", "video", "mean", "the predictions are of 2; give those of one"),
        (frames.filter(label=0), "auc", "video", "mean", "d has only real frames"),
    ):
        with pytest.raises(InputError, match=sentence):
            resample_metrics(table, ["acc", metric], level, video_score=video_score)


@pytest.mark.parametrize("kind", ["distinct", "tied", "mixed videos", "constant", "large counts"])
def test_the_auc_of_pairs_of_videos_is_that_of_the_curves(kind: str) -> None:
    """Bit by bit, and None where the curves cost less."""
    rng = np.random.default_rng(5)
    video = rng.permutation(np.repeat(np.arange(40), rng.integers(20, 60, 40)))
    label = (video % 3 == 0).astype(np.int64)
    if kind == "mixed videos":
        label |= (video % 7 == 0) & (rng.random(len(video)) < 0.5)
    score = rng.normal(0.3 * label, 1)
    if kind == "tied":
        score = score.round(1)
    if kind == "constant":
        score[:] = 0.25
    counts = rng.poisson(1, (30, 40)).astype(np.uint8)
    if kind == "large counts":
        counts[0] = 255
    parts = Draws(*map(torch.from_numpy, (score, label, video, counts)))
    found = resampled_auc(parts.score, parts.label, parts.video, parts.counts)
    assert found is not None
    expected = torch.cat([curve_auc(curve) for curve in parts.curves()])
    assert torch.equal(found, expected)
    single = Draws(
        *map(
            torch.from_numpy,
            (score[:500], label[:500], np.arange(500), np.ones((3, 500), np.uint8)),
        )
    )
    assert resampled_auc(single.score, single.label, single.video, single.counts) is None
