"""Metrics against scikit-learn, ties included."""

import functools
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import metrics as sklearn

from fmsd.errors import InputError
from fmsd.metrics.layout import markdown_table, pivot_datasets
from fmsd.metrics.ranking import (
    METRICS,
    THRESHOLD_METRICS,
    accuracy,
    auc,
    average_precision,
    balanced_accuracy,
    equal_error_rate,
    true_positive_rate,
)
from fmsd.metrics.table import (
    COLUMNS,
    DOMAIN_COLUMNS,
    LEVELS,
    compute_results,
    results_by_domain,
    with_scores,
)
from fmsd.metrics.threshold import best_threshold, best_thresholds
from fmsd.metrics.video import aggregate_videos, group_by_folder


def cases() -> list[tuple[torch.Tensor, torch.Tensor]]:
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 2, 300)
        score = rng.random(300) * 0.6 + 0.4 * label * rng.random(300)
        found.append((score if seed % 2 else score.round(1), label))  # every other one full of ties
    found.append((np.full(300, 0.5), np.arange(300) % 2))
    return [(torch.from_numpy(score), torch.from_numpy(label)) for score, label in found]


@pytest.mark.parametrize(("score", "label"), cases())
def test_ranking_metrics_equal_scikit_learn(score: torch.Tensor, label: torch.Tensor) -> None:
    assert auc(score, label) == pytest.approx(sklearn.roc_auc_score(label, score), abs=1e-12)
    assert average_precision(score, label) == pytest.approx(
        sklearn.average_precision_score(label, score), abs=1e-12
    )
    for threshold in (0.5, 0.3):
        assert accuracy(score, label, threshold) == pytest.approx(
            sklearn.accuracy_score(label, score >= threshold), abs=1e-12
        )
        assert balanced_accuracy(score, label, threshold) == pytest.approx(
            sklearn.balanced_accuracy_score(label, score >= threshold), abs=1e-12
        )
    false_positive, true_positive, _ = sklearn.roc_curve(label, score, drop_intermediate=False)
    grid = np.linspace(0, 1, 2_000_001)
    nearest = grid[np.argmin(np.abs(1 - np.interp(grid, false_positive, true_positive) - grid))]
    assert equal_error_rate(score, label) == pytest.approx(nearest, abs=2e-6)
    for name, limit in (("tpr_0.1", 0.001), ("tpr_1", 0.01), ("tpr_5", 0.05)):
        assert METRICS[name](score, label) == pytest.approx(
            true_positive[false_positive <= limit].max(), abs=1e-12
        )


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05, 0.1, 0.3, 1.0])
def test_one_of_twenty_reals_is_five_percent(limit: float) -> None:
    """The share is attained exactly, which float32 would deny for some limits, and nothing is
    interpolated beyond it.
    """
    reals = 1000
    score = torch.linspace(
        0, 1, 2 * reals, dtype=torch.float64
    )  # reals and fakes in turn, the highest is fake
    label = torch.arange(2 * reals) % 2
    assert true_positive_rate(score, label, limit) == pytest.approx(
        (round(limit * reals) + (limit < 1)) / reals, abs=1e-12
    )
    assert true_positive_rate(score, label, limit - 1e-9) == pytest.approx(
        round(limit * reals) / reals, abs=1e-12
    )


@pytest.mark.parametrize(("score", "label"), cases())
def test_the_best_threshold_has_the_highest_balanced_accuracy_of_all(
    score: torch.Tensor, label: torch.Tensor
) -> None:
    chosen = best_threshold(score, label)
    gains = {
        threshold: balanced_accuracy(score, label, threshold)
        for threshold in score.unique().tolist()
    }
    assert balanced_accuracy(score, label, chosen) == pytest.approx(max(gains.values()), abs=1e-12)
    assert chosen <= max(
        threshold for threshold, gain in gains.items() if gain > max(gains.values()) - 1e-12
    )  # the highest of several
    for noise in (-1e-9, 1e-9):
        assert balanced_accuracy(score + noise, label, chosen) == balanced_accuracy(
            score, label, chosen
        )


def test_where_the_best_threshold_lies() -> None:
    label = torch.tensor([0, 0, 1, 1])
    for scores, expected in {
        (0.1, 0.2, 0.6, 0.9): (0.2 + 0.6) / 2,
        (0.6, 0.9, 0.1, 0.2): 0.1 / 2,  # inverted: calling all fake is no worse than chance
        (0.3, 0.3, 0.3, 0.3): 0.3 / 2,
        (0.0, 0.0, 0.0, 0.0): 0.0,
        (0.1, 1.0, 1.0, 1.0): (0.1 + 1) / 2,
        (0.1, 0.8, 0.6, 0.9): (0.8 + 0.9) / 2,  # as good as 0.35
        (0.1, math.nextafter(0.5, 0), 0.5, 0.9): 0.5,  # neighbours in float64
    }.items():
        assert best_threshold(torch.tensor(scores, dtype=torch.float64), label) == expected


def test_tables_equal_naive_references_at_any_video_score() -> None:
    frames = predictions(domains=2)
    rng = np.random.default_rng(3)
    frames = frames.with_columns(logit=pl.Series(rng.normal(size=frames.height)) + pl.col("label"))
    chosen = {"frame": 0.6, "video": 0.55}
    takes: dict[str, Callable[[np.ndarray], float]] = {
        "mean": np.mean,
        "median": np.median,
        "max": np.max,
        "top1": np.max,
        "top2": lambda scores: np.sort(scores)[-2:].mean(),
        "top9": np.mean,
    }  # a video has three frames
    for video_score, take in takes.items():
        table = compute_results(frames, "iid", video_score=video_score, thresholds=chosen)
        assert table["metric"].unique(maintain_order=True).to_list() == [
            *METRICS,
            *THRESHOLD_METRICS,
        ]
        scores = [
            take(own["score"].to_numpy())
            for _, own in with_scores(frames).group_by("video", maintain_order=True)
        ]
        label = frames.group_by("video", maintain_order=True).first()["label"]
        found = dict(table.filter(level="video").select("metric", "value").rows())
        assert found["auc"] == pytest.approx(sklearn.roc_auc_score(label, scores), abs=1e-12)
        assert found["bacc_val"] == pytest.approx(
            sklearn.balanced_accuracy_score(label, np.array(scores) >= 0.55), abs=1e-12
        )
        assert found["brier"] == pytest.approx(
            np.mean((np.array(scores) - label.to_numpy()) ** 2), abs=1e-12
        )
        assert table.filter(level="frame", metric="acc_val")["value"].item() == pytest.approx(
            sklearn.accuracy_score(frames["label"], with_scores(frames)["score"] >= 0.6), abs=1e-12
        )


@pytest.mark.parametrize("name", ["mode", "top0", "top", "top-1", "top5%", ""])
def test_an_unknown_video_score_is_refused(name: str) -> None:
    with pytest.raises(
        InputError,
        match=r"data\.video_score=.* is unknown; choose one of mean, median, max, or topK",
    ):
        compute_results(predictions(), "iid", video_score=name)


def test_validation_predictions_choose_a_threshold_for_each_level_over_all_their_datasets() -> None:
    parts = []
    for seed, dataset in enumerate("ab"):
        rng = np.random.default_rng(seed)
        part = predictions(seed, domains=1).with_columns(
            dataset=pl.lit(dataset), video=pl.format("{}/{}", pl.lit(dataset), "video")
        )
        parts.append(
            part.with_columns(logit=pl.Series(rng.normal(size=part.height)) + 2 * pl.col("label"))
        )
    both = with_scores(pl.concat(parts))
    chosen = best_thresholds(both)
    assert tuple(chosen) == LEVELS
    for level, items in zip(LEVELS, (both, aggregate_videos(both)), strict=True):
        assert chosen[level] == best_threshold(
            items["score"].to_torch(), items["label"].cast(pl.Int64).to_torch()
        )
    assert best_thresholds(both, "max")["video"] > chosen["video"]
    with pytest.raises(InputError, match="only fake"):
        best_thresholds(both.filter(label=1))


def test_extremes() -> None:
    label = torch.tensor([0, 0, 1, 1])
    score = torch.tensor([0.1, 0.2, 0.8, 0.9], dtype=torch.float64)
    assert (auc(score, label), equal_error_rate(score, label)) == (1.0, 0.0)
    assert (auc(1 - score, label), equal_error_rate(1 - score, label)) == (0.0, 1.0)


def predictions(seed: int = 0, domains: int = 4) -> pl.DataFrame:
    """Frames of a dataset whose manipulations share folder names; one manipulation is invisible to
    the detector.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for domain in range(domains + 1):
        for video in range(20):
            for _ in range(3):
                seen = domain not in (0, 1)
                rows.append(
                    (
                        "ff",
                        int(domain > 0),
                        f"ff/d{domain}/{video}",
                        f"d{domain}",
                        rng.normal(6.0 if seen else -6.0, 0.1),
                    )
                )
    return pl.DataFrame(rows, schema=["dataset", "label", "video", "domain", "logit"], orient="row")


def test_a_detector_blind_to_one_of_four_manipulations_does_not_score_one() -> None:
    """Keyed by the last folder name alone, the four manipulations of a video would merge, and the
    blind spot would vanish.
    """
    table = compute_results(predictions(), "iid")
    value = table.filter(level="video", metric="auc")["value"].item()
    assert value == pytest.approx(0.75 + 0.25 * 0.5, abs=0.07)
    assert table["n_videos"].unique().item() == 100


def test_results_are_tidy_and_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    frames = pl.DataFrame(
        {
            "dataset": ["a"] * 60 + ["b"] * 40,
            "video": [f"v{row // 5}" for row in range(100)],
            "label": [(row // 5) % 2 for row in range(100)],
            "logit": rng.normal(0, 2, 100),
        }
    )
    table = compute_results(frames, "iid")
    assert tuple(table.columns) == COLUMNS
    assert table.height == 2 * 2 * len(METRICS)
    part = with_scores(frames).filter(dataset="a")
    row = table.filter(dataset="a", level="frame", metric="auc").to_dicts()[0]
    assert row["value"] == pytest.approx(
        sklearn.roc_auc_score(part["label"], part["logit"]), abs=1e-6
    )
    assert (row["n_frames"], row["n_videos"], row["selection"]) == (60, 12, "iid")
    videos = aggregate_videos(part)
    expected = [
        np.mean([1 / (1 + math.exp(-x)) for x in part.filter(video=video)["logit"]])
        for video in videos["video"]
    ]
    assert videos["score"].to_list() == pytest.approx(expected)
    assert table.filter(dataset="a", level="video", metric="auc")["value"].item() == pytest.approx(
        sklearn.roc_auc_score(videos["label"], videos["score"]), abs=1e-6
    )
    assert pivot_datasets(table).columns == ["level", "a", "b"]
    assert pivot_datasets(table)["level"].to_list() == ["frame", "video"]


def test_confident_scores_do_not_tie() -> None:
    frames = pl.DataFrame(
        {
            "dataset": "a",
            "video": ["r", "f"],
            "label": [0, 1],
            "logit": np.array([30.0, 31.0], np.float32),
        }
    )
    assert compute_results(frames, "iid").filter(metric="auc")["value"].to_list() == [1.0, 1.0]


def test_a_domains_fakes_are_ranked_against_all_reals_as_scikit_learn_does_ties_included() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for dataset, domains in {"a": ("real", "swap", "puppet"), "b": ("youtube", "swap")}.items():
        for domain in domains:
            for video in range(int(rng.integers(5, 15))):
                label = int(
                    domain not in ("real", "youtube")
                )  # the label tells reals, whatever their domain is called
                logits = (label + rng.normal(0, 2, int(rng.integers(1, 5)))).round()
                rows += [
                    (dataset, label, f"{dataset}/{domain}/{video}", domain, logit)
                    for logit in logits
                ]
    frames = pl.DataFrame(
        rows, schema=["dataset", "label", "video", "domain", "logit"], orient="row"
    ).sample(fraction=1, shuffle=True, seed=0)
    assert frames["logit"].n_unique() < frames.height / 5  # ties
    chosen = {"frame": 0.7, "video": 0.6}
    table = results_by_domain(frames, thresholds=chosen)
    assert tuple(table.columns) == DOMAIN_COLUMNS
    assert set(table.select("dataset", "domain", "level", "metric").rows()) == {
        (*key, level, metric)
        for key in (("a", "swap"), ("a", "puppet"), ("b", "swap"))
        for level in LEVELS
        for metric in (*METRICS, *THRESHOLD_METRICS)
    }
    assert table.height == 6 * 12
    for row in table.to_dicts():
        own = with_scores(frames).filter(
            pl.col("dataset") == row["dataset"],
            (pl.col("label") == 0) | (pl.col("domain") == row["domain"]),
        )
        items = own if row["level"] == "frame" else aggregate_videos(own)
        score, label = items["score"], items["label"]
        expected = {
            "auc": sklearn.roc_auc_score(label, score),
            "ap": sklearn.average_precision_score(label, score),
            "bacc": sklearn.balanced_accuracy_score(label, score >= 0.5),
            "acc_val": sklearn.accuracy_score(label, score >= chosen[row["level"]]),
        }
        assert row["value"] == pytest.approx(expected.get(row["metric"], row["value"]), abs=1e-12)
        assert (row["n_frames"], row["n_videos"]) == (own.height, own["video"].n_unique())


def test_forgeries_are_grouped_and_scored_as_the_dataset_is() -> None:
    frames = predictions(domains=2)
    with pytest.raises(
        InputError, match=r"Every fake video ranked on ff bears the name of a real one"
    ):
        results_by_domain(frames, "folder")
    apart = frames.with_columns(
        video=pl.when(pl.col("label") == 1).then(pl.col("video") + "_f").otherwise("video")
    )
    table = results_by_domain(apart, "folder")
    assert table.equals(results_by_domain(group_by_folder(apart)))
    assert set(table["n_videos"]) == {40}
    highest = (
        with_scores(group_by_folder(apart).filter(pl.col("domain") != "d2"))
        .group_by("video")
        .agg(pl.col("label").max(), pl.col("score").max())
    )
    value = (
        results_by_domain(apart, "folder", "max")
        .filter(domain="d1", level="video", metric="auc")["value"]
        .item()
    )
    assert value == pytest.approx(
        sklearn.roc_auc_score(highest["label"], highest["score"]), abs=1e-12
    )


def test_with_one_forgery_its_metrics_are_the_datasets() -> None:
    frames = predictions(domains=1)
    columns = ["dataset", "level", "metric", "value", "n_frames", "n_videos"]
    assert (
        results_by_domain(frames).select(columns).rows()
        == compute_results(frames, "iid").select(columns).rows()
    )


@pytest.mark.parametrize(
    "table", [lambda frames: compute_results(frames, "iid"), results_by_domain]
)
def test_one_class_is_refused(table: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    with pytest.raises(InputError, match=r"test split of ff has only real frames"):
        table(predictions().filter(label=0))
    with pytest.raises(InputError, match=r"test split of ff has only fake frames"):
        table(predictions().filter(label=1))


@pytest.mark.parametrize("broken", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "table",
    [
        with_scores,
        lambda frames: compute_results(frames, "iid", metrics=["acc"]),
        results_by_domain,
    ],
)
def test_logits_that_are_no_numbers_are_refused(
    broken: float | None, table: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    """One that is null or not a number would be ranked somewhere all the same, and count as real at
    any threshold.
    """
    frames = (
        predictions()
        .with_row_index("row")
        .with_columns(
            logit=pl.when(pl.col("row") % 100 == 7).then(pl.lit(broken)).otherwise("logit")
        )
    )
    with pytest.raises(
        InputError,
        match=r"Among the logits 3 of ff are null or not finite, so no metric exists; "
        r"test the run again\.",
    ):
        table(frames)
    both = pl.concat([frames, frames.head(100).with_columns(dataset=pl.lit("celeb"))])
    with pytest.raises(
        InputError, match=r"Among the logits 1 of celeb and 3 of ff are null or not finite"
    ):
        table(both)


@pytest.mark.parametrize("chosen", [None, {"frame": 0.7, "video": 0.6}])
@pytest.mark.parametrize("metrics", [["auc"], ["brier"], ["acc_val"], ["ece", "tpr_1", "bacc_val"]])
@pytest.mark.parametrize(
    "table", [functools.partial(compute_results, selection="iid"), results_by_domain]
)
def test_some_metrics_are_those_of_all(
    table: Callable[..., pl.DataFrame], metrics: list[str], chosen: dict[str, float] | None
) -> None:
    everything = table(predictions(), thresholds=chosen)
    some = table(predictions(), thresholds=chosen, metrics=metrics)
    columns = [name for name in everything.columns if name != "value"]
    assert some.sort(columns).equals(
        everything.filter(pl.col("metric").is_in(metrics)).sort(columns)
    )
    with pytest.raises(InputError, match=r"metric=f1 is unknown; choose one of auc, ap,"):
        table(predictions(), thresholds=chosen, metrics=[*metrics, "f1"])


def test_markdown() -> None:
    assert markdown_table(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | ---: |\n| x | 1 |\n"
