"""Metrics against scikit-learn, ties included."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import metrics as sklearn

from fmsd.metrics.ranking import accuracy, auc, average_precision, equal_error_rate
from fmsd.metrics.table import COLUMNS, DOMAIN_COLUMNS, by_domain, markdown, results, scored, wide
from fmsd.metrics.video import by_video
from fmsd.types import InputError


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
    assert auc(score, label) == pytest.approx(sklearn.roc_auc_score(label, score), abs=1e-6)
    assert average_precision(score, label) == pytest.approx(sklearn.average_precision_score(label, score), abs=1e-6)
    assert accuracy(score, label) == pytest.approx(sklearn.accuracy_score(label, score >= 0.5), abs=1e-12)
    false_positive, true_positive, _ = sklearn.roc_curve(label, score, drop_intermediate=False)
    grid = np.linspace(0, 1, 2_000_001)
    nearest = grid[np.argmin(np.abs(1 - np.interp(grid, false_positive, true_positive) - grid))]
    assert equal_error_rate(score, label) == pytest.approx(nearest, abs=2e-6)


def test_extremes() -> None:
    label = torch.tensor([0, 0, 1, 1])
    score = torch.tensor([0.1, 0.2, 0.8, 0.9], dtype=torch.float64)
    assert (auc(score, label), equal_error_rate(score, label)) == (1.0, 0.0)
    assert (auc(1 - score, label), equal_error_rate(1 - score, label)) == (0.0, 1.0)


def predictions(seed: int = 0, domains: int = 4) -> pl.DataFrame:
    """Frames of a dataset whose manipulations share folder names; one manipulation is invisible to the detector."""
    rng = np.random.default_rng(seed)
    rows = []
    for domain in range(domains + 1):
        for video in range(20):
            for _ in range(3):
                seen = domain not in (0, 1)
                rows.append(("ff", int(domain > 0), f"ff/d{domain}/{video}", f"d{domain}", rng.normal(6.0 if seen else -6.0, 0.1)))
    return pl.DataFrame(rows, schema=["dataset", "label", "video", "domain", "logit"], orient="row")


def test_a_detector_blind_to_one_of_four_manipulations_does_not_score_one() -> None:
    """Keyed by the last folder name alone, the four manipulations of a video would merge, and the blind spot would vanish."""
    table = results(predictions(), "iid")
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
    table = results(frames, "iid")
    assert tuple(table.columns) == COLUMNS
    assert table.height == 2 * 2 * 4
    part = scored(frames).filter(dataset="a")
    row = table.filter(dataset="a", level="frame", metric="auc").to_dicts()[0]
    assert row["value"] == pytest.approx(sklearn.roc_auc_score(part["label"], part["logit"]), abs=1e-6)
    assert (row["n_frames"], row["n_videos"], row["selection"]) == (60, 12, "iid")
    videos = by_video(part)
    expected = [np.mean([1 / (1 + math.exp(-x)) for x in part.filter(video=video)["logit"]]) for video in videos["video"]]
    assert videos["score"].to_list() == pytest.approx(expected)
    assert table.filter(dataset="a", level="video", metric="auc")["value"].item() == pytest.approx(
        sklearn.roc_auc_score(videos["label"], videos["score"]), abs=1e-6
    )
    assert wide(table).columns == ["level", "a", "b"]
    assert wide(table)["level"].to_list() == ["frame", "video"]


def test_confident_scores_do_not_tie() -> None:
    frames = pl.DataFrame({"dataset": "a", "video": ["r", "f"], "label": [0, 1], "logit": np.array([30.0, 31.0], np.float32)})
    assert results(frames, "iid").filter(metric="auc")["value"].to_list() == [1.0, 1.0]


def test_a_domains_fakes_are_ranked_against_all_reals_as_scikit_learn_does_ties_included() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for dataset, domains in {"a": ("real", "swap", "puppet"), "b": ("youtube", "swap")}.items():
        for domain in domains:
            for video in range(int(rng.integers(5, 15))):
                label = int(domain not in ("real", "youtube"))  # the label tells reals, whatever their domain is called
                logits = (label + rng.normal(0, 2, int(rng.integers(1, 5)))).round()
                rows += [(dataset, label, f"{dataset}/{domain}/{video}", domain, logit) for logit in logits]
    frames = pl.DataFrame(rows, schema=["dataset", "label", "video", "domain", "logit"], orient="row").sample(fraction=1, shuffle=True, seed=0)
    assert frames["logit"].n_unique() < frames.height / 5  # ties
    table = by_domain(frames)
    assert tuple(table.columns) == DOMAIN_COLUMNS
    assert set(table.select("dataset", "domain", "level").rows()) == {
        (*key, level) for key in (("a", "swap"), ("a", "puppet"), ("b", "swap")) for level in ("frame", "video")
    }
    assert table.height == 6
    for row in table.to_dicts():
        own = scored(frames).filter(pl.col("dataset") == row["dataset"], (pl.col("label") == 0) | (pl.col("domain") == row["domain"]))
        items = own if row["level"] == "frame" else by_video(own)
        assert row["value"] == pytest.approx(sklearn.roc_auc_score(items["label"], items["score"]), abs=1e-6)
        assert (row["n_frames"], row["n_videos"]) == (own.height, own["video"].n_unique())


def test_with_one_forgery_its_auc_is_the_datasets() -> None:
    frames = predictions(domains=1)
    whole = results(frames, "iid").filter(metric="auc")
    assert by_domain(frames).select("dataset", "level", "value", "n_frames", "n_videos").rows() == (
        whole.select("dataset", "level", "value", "n_frames", "n_videos").rows()
    )


@pytest.mark.parametrize("table", [lambda frames: results(frames, "iid"), by_domain])
def test_one_class_is_refused(table: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    with pytest.raises(InputError, match=r"test split of ff has only real frames"):
        table(predictions().filter(label=0))
    with pytest.raises(InputError, match=r"test split of ff has only fake frames"):
        table(predictions().filter(label=1))


def test_markdown() -> None:
    assert markdown(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | ---: |\n| x | 1 |\n"
