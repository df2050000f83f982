"""Parity with DeepfakeBench: under `protocol=dfb_compat` our metrics of scores are its own.

The reference follows its published definitions (training/metrics/utils.py of SCLBD/DeepfakeBench),
with scikit-learn's curves, as it has them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sklearn

from fmsd.data.entries import from_entries
from fmsd.data.sources import deepfakebench
from fmsd.errors import InputError
from fmsd.metrics.definitions import DEEPFAKEBENCH, mean_in_order
from fmsd.metrics.interval import resample_metrics
from fmsd.metrics.table import compute_results, results_by_domain
from fmsd.metrics.video import aggregate_videos, group_by_folder
from tests.test_deepfakebench import benchmark

EXACT = 1e-12


def folder_of(path: str) -> str:
    """The last folder of a path, which has backslashes alone if it has any."""
    return path.split("\\" if "\\" in path else "/")[-2]


def curve_values(score: Sequence[float], label: Sequence[int]) -> dict[str, float]:
    false_positive, true_positive, _ = sklearn.roc_curve(label, score)
    nearest = np.argmin(np.abs((1 - true_positive) - false_positive))
    return {
        "auc": float(sklearn.auc(false_positive, true_positive)),
        "eer": float(false_positive[nearest]),
    }


def reference(paths: Sequence[str], score: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The metrics of DeepfakeBench; those of videos have the prefix `video_`."""
    videos = defaultdict[str, list[int]](list)
    for place, path in enumerate(paths):
        videos[folder_of(path)].append(place)
    video_score, video_label = [], []
    for places in videos.values():
        total = 0.0
        for place in places:
            total += float(score[place])
        video_score.append(total / len(places))
        video_label.append(int(label[places].sum() / len(places)))
    values = {
        f"video_{name}": value for name, value in curve_values(video_score, video_label).items()
    }
    return (
        values
        | curve_values(score.tolist(), label.tolist())
        | {
            "ap": float(sklearn.average_precision_score(label, score)),
            "acc": float(((score > 0.5).astype(int) == label).mean()),
        }
    )


def predictions(paths: Sequence[str], score: np.ndarray, label: np.ndarray) -> pl.DataFrame:
    """Predictions whose videos are named as in manifests: by domain, compression and folder."""
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    names = [path.replace("\\", "/").split("/") for path in paths]
    return pl.DataFrame(
        {
            "dataset": "ff++",
            "path": paths,
            "label": label,
            "domain": [parts[-5] for parts in names],
            "video": [f"ff++/{parts[-5]}/{parts[-4]}/{parts[-2]}" for parts in names],
            "logit": logit,
        }
    )


def ours(frames: pl.DataFrame, definitions: str = DEEPFAKEBENCH) -> dict[str, float]:
    table = compute_results(
        frames, "oracle", "dfb_compat", "folder", "mean", definitions=definitions
    )
    rows = table.select("level", "metric", "value").iter_rows()
    return {f"{'video_' if level == 'video' else ''}{name}": value for level, name, value in rows}


def probabilities(frames: pl.DataFrame) -> np.ndarray:
    """The scores as they are ranked: those of the logits."""
    return (1 / (1 + (-frames["logit"]).exp())).to_numpy()


def check(frames: pl.DataFrame) -> None:
    expected = reference(
        frames["path"].to_list(), probabilities(frames), frames["label"].to_numpy()
    )
    found = ours(frames)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=EXACT, rel=0)


def case(
    seed: int, digits: int | None, videos: int, fakes: float, slash: str = "/"
) -> pl.DataFrame:
    """Frames of real and forged videos; forgeries of one source have one folder name."""
    rng = np.random.default_rng(seed)
    paths, label = [], []
    for video in range(videos):
        fake = video > 0 and (video == 1 or rng.random() < fakes)
        domains = rng.permutation(["Deepfakes", "Face2Face", "FaceSwap"])[: rng.integers(1, 4)]
        for domain in domains if fake else ["real"]:
            name = f"{video:03d}_{video + 1:03d}" if fake else f"{video:03d}"
            for frame in range(int(rng.integers(1, 8))):
                paths.append(slash.join(["rgb", domain, "c23", "frames", name, f"{frame:03d}.png"]))
                label.append(int(fake))
    labels = np.array(label)
    score = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0.001, 0.999)
    if digits is not None:
        score = np.clip(score.round(digits), 0.001, 0.999)
    order = rng.permutation(len(labels))
    return predictions([paths[place] for place in order], score[order], labels[order])


@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("fakes", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("digits", [1, 2, None])
def test_random_scores_have_the_metrics_of_deepfakebench(
    digits: int | None, fakes: float, slash: str
) -> None:
    """With ties, few real or few fake videos, and forgeries that merge into one video."""
    for seed in range(12):
        check(case(seed, digits, int(2 + seed * 3.5), fakes, slash))


def test_scores_of_one_half_are_real_and_equal_scores_tie() -> None:
    score, label = np.array([0.5, 0.5, 0.25, 0.75]), np.array([0, 1, 0, 1])
    paths = [
        f"rgb/{'one' if fake else 'real'}/c23/frames/{place}/0.png"
        for place, fake in enumerate(label)
    ]
    frames = predictions(paths, score, label)
    check(frames)
    assert ours(frames)["acc"] == ours(frames)["bacc"] == 0.75
    assert ours(frames, "fmsd")["acc"] == 0.75  # the other one is wrong there
    frames = predictions(paths, np.full(4, 0.5), label)
    check(frames)
    assert (ours(frames)["auc"], ours(frames)["acc"], ours(frames, "fmsd")["acc"]) == (0.5,) * 3


def test_the_mean_of_a_video_depends_on_the_order_of_its_frames_as_in_deepfakebench() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in float64: the two videos do not tie there."""
    score = np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
    table = pl.DataFrame({"video": [*"aaabbb"], "label": 0, "score": score})
    assert mean_in_order(table)["score"].to_list() == [(0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3]
    assert mean_in_order(table)["score"].n_unique() == 2
    assert aggregate_videos(table, "mean", DEEPFAKEBENCH).equals(mean_in_order(table))


def test_the_error_rate_is_that_of_a_point_which_scikit_learn_keeps() -> None:
    """The only point at which both rates are equal lies between two equal steps, and is dropped."""
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0])
    score = np.linspace(0.9, 0.1, 10)
    paths = [
        f"rgb/{'one' if fake else 'real'}/c23/frames/{place}/0.png"
        for place, fake in enumerate(label)
    ]
    frames = predictions(paths, score, label)
    check(frames)
    assert ours(frames)["eer"] != pytest.approx(ours(frames, "fmsd")["eer"])


def test_the_700_test_videos_of_faceforensics_become_280() -> None:
    """A detector that fails on one of four forgeries scores 1.00 where the truth is 0.75."""
    rng, paths, score = np.random.default_rng(0), [], []
    for domain in ("real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
        low = {"real": 0.3, "NeuralTextures": 0.1}.get(domain, 0.9)
        for video in range(140):
            name = f"{video:03d}" if domain == "real" else f"{video:03d}_{139 - video:03d}"
            paths += [f"rgb/{domain}/c23/frames/{name}/{frame}.png" for frame in range(3)]
            score += list(low + 0.01 * rng.random(3))
    label = np.array([0 if "/real/" in path else 1 for path in paths])
    frames = predictions(paths, np.array(score), label)
    check(frames)
    assert ours(frames)["video_auc"] == 1
    own = compute_results(frames, "iid").filter(level="video", metric="auc")
    assert (own["value"][0], own["n_videos"][0]) == (0.75, 700)
    merged = compute_results(frames, "oracle", "dfb_compat", "folder", definitions=DEEPFAKEBENCH)
    assert merged["n_videos"].unique().to_list() == [280]


@pytest.mark.parametrize("windows", [False, True])
def test_videos_of_its_json_files_are_grouped_by_the_last_folder(
    tmp_path: Path, windows: bool
) -> None:
    """Our ids of the videos end with the folder by which DeepfakeBench groups the listed paths."""
    root = benchmark(tmp_path, windows=windows)
    for file in ("FaceForensics++.json", "Celeb-DF-v2.json"):
        text = (root / "dataset_json" / file).read_text()
        listed = [json.loads(word) for word in re.findall(r'"[^"]*[.]png"', text)]
        theirs = {path.replace("\\", "/"): folder_of(path) for path in listed}
        scan = deepfakebench.scan(root, file=file, dataset="x", compression="c23")
        frames = group_by_folder(from_entries(scan, root).table)
        assert frames.height
        for path, video in frames.select("path", "video").iter_rows():
            assert video == theirs[path.removeprefix("rgb/")]


@pytest.mark.parametrize("level", ["frame", "video"])
def test_a_resample_has_the_metrics_of_the_videos_that_were_drawn(level: str) -> None:
    """Every video counts once in a resample that draws each once; others are drawn for real."""
    frames = case(3, 2, 30, 0.5).with_columns(video=pl.col("video").str.replace_all("/", "|"))
    names = frames["video"].unique().sort()
    label = dict(frames.select("video", "label").iter_rows())
    found = resample_metrics(frames, ["eer", "acc"], level, 40, seed=7, definitions=DEEPFAKEBENCH)
    rng, counts = np.random.default_rng(7), np.zeros((40, len(names)), int)
    fake = np.array([label[name] == 1 for name in names])
    for members in (np.flatnonzero(~fake), np.flatnonzero(fake)):
        for row in counts:
            drawn = rng.integers(len(members), size=len(members))
            row[members] = np.bincount(drawn, minlength=len(members))
    scored = frames.with_columns(score=pl.Series(probabilities(frames)))
    items = mean_in_order(scored) if level == "video" else scored
    for number, row in enumerate(counts):
        times = items["video"].replace_strict(dict(zip(names, row, strict=True))).to_numpy()
        score, own = (np.repeat(items[name].to_numpy(), times) for name in ("score", "label"))
        assert found["eer"][number] == pytest.approx(curve_values(score, own)["eer"], abs=EXACT)
        assert found["acc"][number] == pytest.approx(((score > 0.5) == own).mean(), abs=EXACT)


def test_forgeries_have_these_metrics_and_unknown_definitions_are_refused() -> None:
    frames = case(5, 1, 20, 0.5)
    domain = results_by_domain(frames, "folder", metrics=["eer"], definitions=DEEPFAKEBENCH)
    for name in domain["domain"].unique():
        part = frames.filter((pl.col("label") == 0) | (pl.col("domain") == name))
        value = domain.filter(domain=name, level="frame")["value"][0]
        assert value == pytest.approx(
            curve_values(probabilities(part), part["label"].to_numpy())["eer"], abs=EXACT
        )
    with pytest.raises(InputError, match=r"data\.definitions=theirs is unknown"):
        ours(frames, "theirs")
