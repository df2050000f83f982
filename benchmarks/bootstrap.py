"""Intervals from 1,000 resamples of the videos of 100,000 frames, beside loops over resamples.

python benchmarks/bootstrap.py [--rounds N] [--json PATH]

3,125 videos of 32 frames, half of them fake, with distinct scores; AUC of frames unless it says
otherwise. Ours begins with the table of predictions. A loop draws videos alike, repeats the rows
and calls scikit-learn or torchmetrics; it makes only so many resamples as LOOP says, and its
seconds are scaled up to 1,000. All are measured in turn, each in one thread.

Beside them, as a dataset of single images is, 100,000 videos of one frame: both levels, and how far
they raise the high-water mark of the resident memory, which is taken before anything else is
measured.
"""

import functools
import resource
import statistics
import time

import numpy as np
import polars as pl
import torch
from harness import Row, arguments, interleaved, ratio, report, row
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc

from fmsd.metrics.interval import draw_counts, resample_metrics
from fmsd.metrics.ranking import METRICS
from fmsd.metrics.table import LEVELS, compute_results, with_scores

VIDEOS, FRAMES, RESAMPLES, LOOP = 3125, 32, 1000, 10
ALONE = "AUC, one frame a video, frames and videos"


def predictions(videos: int, frames: int) -> pl.DataFrame:
    """Frames of videos that have an effect of their own, in any order."""
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(videos), frames)
    logit = video % 2 + rng.normal(size=videos)[video] + rng.normal(size=len(video))
    table = pl.DataFrame(
        {"dataset": "d", "number": video, "label": video % 2, "logit": logit}
    ).with_columns(video=pl.format("d/{}", "number"))
    return table.sample(fraction=1, shuffle=True, seed=0)


def looped(frames: pl.DataFrame, torchmetrics: bool) -> None:
    """Makes a few resamples one by one and takes the AUC of each."""
    counts = draw_counts((np.arange(VIDEOS) % 2).astype(bool), LOOP, 0).numpy().astype(int)
    score, label, video = (frames[name].to_numpy() for name in ("score", "label", "number"))
    for times in counts:
        row = np.repeat(np.arange(len(video)), times[video])
        if torchmetrics:
            binary_auroc(
                torch.from_numpy(score[row]), torch.from_numpy(label[row]), validate_args=False
            )
        else:
            roc_auc_score(label[row], score[row])


def peak() -> float:
    """The process's largest resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def both(frames: pl.DataFrame) -> None:
    """Resamples frames and videos."""
    for level in LEVELS:
        resample_metrics(frames, ["auc"], level, RESAMPLES)


def measure(rounds: int) -> list[Row]:
    """Medians over the rounds; ratios are medians of those within a round."""
    torch.set_num_threads(1)
    images = functools.partial(both, predictions(VIDEOS * FRAMES, 1))
    before = peak()
    images()
    memory = peak() - before
    frames = with_scores(predictions(VIDEOS, FRAMES))
    loops = {
        "scikit-learn": functools.partial(looped, frames, False),
        "torchmetrics": functools.partial(looped, frames, True),
    }
    ours = {
        "AUC": functools.partial(resample_metrics, frames, ["auc"], "frame", RESAMPLES),
        "AUC of videos": functools.partial(resample_metrics, frames, ["auc"], "video", RESAMPLES),
        f"all {len(METRICS)} metrics": functools.partial(
            resample_metrics, frames, list(METRICS), "frame", RESAMPLES
        ),
    }
    single = {
        "results: all metrics, no resamples": functools.partial(compute_results, frames, "iid"),
        ALONE: images,
    }
    seconds = interleaved(ours | single | loops, rounds)
    for name in loops:
        seconds[name] = [value * RESAMPLES / LOOP for value in seconds[name]]
    rows = [
        row(name, statistics.median(seconds[name]), "s", {"AUC": 2.0, ALONE: 4.0}.get(name))
        for name in {**ours, **single}
    ]
    rows.append(row(f"{ALONE}, memory", memory, "MB", 300))
    for name in ("AUC", ALONE):
        start = time.process_time()
        (ours | single)[name]()
        rows.append(row(f"{name}, processor time", time.process_time() - start, "s"))
    for name in loops:
        rows.append(
            row(
                f"loop with {name}, {LOOP} resamples, scaled", statistics.median(seconds[name]), "s"
            )
        )
        rows.append(row(f"AUC / loop with {name}", ratio(seconds, "AUC", name), "x", None, name))
    return rows


if __name__ == "__main__":
    title = f"{RESAMPLES} resamples of {VIDEOS} videos, {VIDEOS * FRAMES} frames"
    parser = arguments(title)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report(title, measure(options.rounds), options.json)
