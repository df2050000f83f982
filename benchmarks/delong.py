"""DeLong's test of 100,000 videos, beside the reference over all pairs and the bootstrap.

python benchmarks/delong.py [--rounds N] [--json PATH]

Half of the videos are fake, two detectors score all of them, a tenth of the scores are equal. The
reference holds a matrix of all pairs of a real and a fake video, so it is measured on SMALL videos.
Cross-AUC, risk-coverage and groups are those of as many videos. All in one thread.
"""

import functools
import statistics

import numpy as np
import polars as pl
import torch
from harness import Row, arguments, interleaved, ratio, report, row

from fmsd.metrics.cross_auc import cross_auc
from fmsd.metrics.delong import covariance, paired_test, placements
from fmsd.metrics.groups import split_groups
from fmsd.metrics.interval import resample_metrics
from fmsd.metrics.selective import risk_coverage
from fmsd.metrics.table import with_scores

VIDEOS, SMALL, DATASETS, FORGERIES = 100_000, 4_000, 15, 5
DELONG = f"DeLong's test, {VIDEOS:,} videos"

Classes = tuple[np.ndarray, np.ndarray]


def detectors(videos: int) -> list[Classes]:
    """Scores of the real and of the fake videos by two detectors."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=videos)
    found = []
    for noise in (0.5, 1.0):
        score = np.arange(videos) % 2 + shared + noise * rng.normal(size=videos)
        score = np.where(rng.random(videos) < 0.1, score.round(1), score)
        found.append((score[::2], score[1::2]))
    return found


def delong(scores: list[Classes]) -> float:
    """The p-value of the difference of two AUCs."""
    one, other = (placements(*classes) for classes in scores)
    return paired_test([(one, other)]).p


def all_pairs(scores: list[Classes]) -> float:
    """The covariance of two AUCs by the matrices of all pairs."""
    parts = []
    for real, fake in scores:
        wins = (fake[:, None] > real) + 0.5 * (fake[:, None] == real)
        parts.append((wins.mean(1), wins.mean(0)))
    return sum(float(np.cov(*pair)[0, 1]) / len(pair[0]) for pair in zip(*parts, strict=True))


def predictions() -> pl.DataFrame:
    """A dataset of images: a video has one frame."""
    real, fake = detectors(VIDEOS)[0]
    numbers = np.arange(VIDEOS)
    table = pl.DataFrame(
        {
            "dataset": "d",
            "number": numbers,
            "label": np.repeat([0, 1], [len(real), len(fake)]),
            "logit": np.concatenate([real, fake]),
        }
    )
    domain = pl.when(pl.col("label") == 0).then(pl.lit("real"))
    return with_scores(
        table.with_columns(
            domain=domain.otherwise(pl.format("forgery {}", pl.col("number") % FORGERIES)),
            video=pl.format("d/{}", "number"),
        )
    )


def measure(rounds: int) -> list[Row]:
    """Medians over the rounds; ratios are medians of those within a round."""
    torch.set_num_threads(1)
    large, small, table = detectors(VIDEOS), detectors(SMALL), predictions()
    label = np.repeat([0, 1], VIDEOS // 2)
    score = table["score"].to_numpy()
    sets = {str(number): large[number % 2] for number in range(DATASETS)}
    tests = {
        DELONG: functools.partial(delong, large),
        f"DeLong's test, {SMALL:,} videos": functools.partial(delong, small),
        f"all pairs, {SMALL:,} videos": functools.partial(all_pairs, small),
        f"bootstrap of one AUC, {VIDEOS:,} videos": functools.partial(
            resample_metrics, table, ["auc"], "video", 1000
        ),
        f"risk-coverage, {VIDEOS:,} videos": functools.partial(risk_coverage, score, label),
        f"{FORGERIES} groups, {VIDEOS:,} videos": functools.partial(split_groups, table, "domain"),
        f"cross-AUC, {DATASETS} x {VIDEOS:,} videos": functools.partial(cross_auc, sets),
    }
    one, other = (placements(*classes) for classes in small)
    error = abs(covariance(one, other) - all_pairs(small))
    seconds = interleaved(tests, rounds)
    rows = [
        row(name, statistics.median(seconds[name]), "s", {DELONG: 1.0}.get(name)) for name in tests
    ]
    rows.append(row("DeLong's covariance minus that of all pairs", error, "", 1e-12))
    names = f"DeLong's test, {SMALL:,} videos", f"all pairs, {SMALL:,} videos"
    rows.append(row(" / ".join(names), ratio(seconds, *names), "x", None, names[1]))
    return rows


if __name__ == "__main__":
    title = f"Statistics of {VIDEOS:,} videos"
    parser = arguments(title)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report(title, measure(options.rounds), options.json)
