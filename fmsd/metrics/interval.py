"""How far a number would move on other videos: the bootstrap over videos, its intervals, and the paired difference of two runs.

B. Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics, 1979. Frames of a
video are alike, so videos are drawn, never frames (a cluster bootstrap). A resample is a count of
how often each video was drawn, and a metric of it one of weighted items: no resample is ever made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int, UInt8
from torch import Tensor

from fmsd.errors import InputError
from fmsd.metrics.calibration import BINS, bin_indices
from fmsd.metrics.ranking import CURVE_METRICS, Curve, CurveValues, check_metrics
from fmsd.metrics.table import LEVELS, scores_by_dataset, single_torch_thread
from fmsd.metrics.video import aggregate_videos

Samples = Float64[np.ndarray, " resamples"]
"""A metric of every resample."""

MIN_VIDEOS = 10
"""Videos of each class that an interval, a p-value or a mark needs.

A bootstrap knows no video but those it draws from: of one real video that lies right every resample
is right, and the interval is [1, 1] whatever the truth. n videos without an error are what a
detector that errs on a share of 1 - 0.05^(1/n) of all shows once in twenty times: 95 % of them for
n = 1, 26 % for n = 10. Below that an interval says more of the sample's size than of the detector.
"""

BLOCK = 2**19
"""How many weights are held at a time; their 4 MB stay in the cache."""


class Difference(NamedTuple):
    """One run less another: what was observed, the interval it lies in, and the two-sided p-value of there being none."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Draws:
    """Scored items, and how often the video of each was drawn in every resample."""

    score: Float64[Tensor, " items"]
    label: Int[Tensor, " items"]
    video: Int[Tensor, " items"]
    counts: UInt8[Tensor, "resamples videos"]

    def totals(self, values: Float64[Tensor, "items kinds"]) -> Float64[Tensor, "resamples kinds"]:
        """The weighted sums over the items; first over those of each video, as these are drawn together."""
        sums = values.new_zeros(self.counts.shape[1], values.shape[1]).index_add_(
            0, self.video, values
        )
        return torch.cat([counts.double() @ sums for counts in self.blocks(len(sums))])

    def blocks(self, width: int) -> Sequence[UInt8[Tensor, "block videos"]]:
        """The counts of so many resamples at a time that BLOCK holds a weight for each of `width` things."""
        return self.counts.split(max(1, BLOCK // width))

    @property
    def classes(self) -> Float64[Tensor, "items 2"]:
        """One in the column of the item's label."""
        return torch.nn.functional.one_hot(self.label, 2).double()

    def right(self, threshold: float) -> Float64[Tensor, "resamples 2"]:
        """How many reals and how many fakes are on the right side of the threshold."""
        return self.totals(self.classes * ((self.score >= threshold).long() == self.label)[:, None])

    def curves(self) -> Iterator[Curve]:
        """The ROC curves of the resamples, block by block, with a point for every distinct score of all items."""
        order = self.score.argsort(descending=True)
        score, video, fake = self.score[order], self.video[order], self.label[order].double()
        ends = (
            torch.cat([score.diff() != 0, score.new_ones(1, dtype=torch.bool)]).nonzero().squeeze(1)
        )
        threshold = torch.cat([score.new_ones(1), score[ends]])
        for counts in self.blocks(len(score)):
            weight = torch.from_numpy(
                counts.numpy().take(video.numpy(), 1)
            ).double()  # torch takes three times as long over bytes
            fakes = (weight * fake).cumsum(1)
            items = weight.cumsum(1)
            if len(ends) < len(score):
                fakes, items = fakes[:, ends], items[:, ends]
            yield Curve(
                torch.nn.functional.pad(items - fakes, (1, 0)),
                torch.nn.functional.pad(fakes, (1, 0)),
                threshold,
            )


def accuracy(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.ranking.accuracy`."""
    return draws.right(threshold).sum(1) / draws.totals(draws.classes).sum(1)


def balanced_accuracy(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.ranking.balanced_accuracy`."""
    return (draws.right(threshold) / draws.totals(draws.classes)).mean(1)


def brier(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.calibration.brier`; the threshold has no part in it."""
    return draws.totals((draws.score - draws.label).square()[:, None]).squeeze(1) / draws.totals(
        draws.classes
    ).sum(1)


def expected_calibration_error(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.calibration.expected_calibration_error`; the threshold has no part in it."""
    bins = torch.nn.functional.one_hot(bin_indices(draws.score), BINS)
    return draws.totals(bins * (draws.score - draws.label)[:, None]).abs().sum(1) / draws.totals(
        draws.classes
    ).sum(1)


SUM_METRICS: Mapping[str, Callable[[Draws, float], CurveValues]] = {
    "acc": accuracy,
    "bacc": balanced_accuracy,
    "acc_val": accuracy,
    "bacc_val": balanced_accuracy,
    "brier": brier,
    "ece": expected_calibration_error,
}
"""The metrics that sums over the items tell."""


def weighted_metrics(
    draws: Draws, metrics: Sequence[str], threshold: float | None = None
) -> dict[str, Samples]:
    """The metrics of every resample; those of counts that are all 1 are the metrics of the items themselves.

    Args:
        metrics: names in `fmsd.metrics.ranking.METRICS` and `AT_THRESHOLD`.
        threshold: of the latter.

    Raises:
        InputError: an unknown metric, or a threshold that is missing.
    """
    lacking = [metric for metric in check_metrics(metrics) if metric.endswith("_val")]
    if threshold is None and lacking:
        raise InputError(
            f"metric={lacking[0]} needs the threshold that validation data chose, and there is "
            "none",
            f"choose {lacking[0][:-4]}",
        )
    ranking = [metric for metric in metrics if metric in CURVE_METRICS]
    found = {
        metric: draws.score.new_empty(len(draws.counts)) for metric in ranking
    }  # small tensors kept between large ones would fragment memory
    with single_torch_thread():
        done = 0
        for curve in draws.curves() if ranking else ():
            for metric in ranking:
                found[metric][done : done + len(curve.fakes)] = CURVE_METRICS[metric](curve)
            done += len(curve.fakes)
        for metric in metrics:
            if metric in SUM_METRICS:
                found[metric] = SUM_METRICS[metric](
                    draws, threshold if metric.endswith("_val") and threshold is not None else 0.5
                )
    return {metric: found[metric].numpy() for metric in metrics}


def draw_counts(
    fake: Bool[np.ndarray, " videos"], resamples: int, seed: int
) -> UInt8[Tensor, "resamples videos"]:
    """How often each video is in each resample: as many reals and as many fakes are drawn, with replacement, as there are.

    A byte holds a count: that of a video is 1 on average and never once exceeds 255, the odds being
    less than 1 to 10^500.
    """
    rng, counts = np.random.default_rng(seed), np.empty((resamples, len(fake)), np.uint8)
    for own in (np.flatnonzero(~fake), np.flatnonzero(fake)):
        for row in counts:
            row[own] = np.bincount(rng.integers(len(own), size=len(own)), minlength=len(own))
    return torch.from_numpy(counts)


def resample_metrics(
    frames: pl.DataFrame,
    metrics: Sequence[str],
    level: str,
    resamples: int = 1000,
    seed: int = 0,
    naming: str = "id",
    video_score: str = "mean",
    threshold: float | None = None,
) -> dict[str, Samples]:
    """Metrics of one dataset's predictions on resamples of its videos, stratified by their label.

    At frame level a frame counts as often as its video was drawn. Predictions of the same videos,
    in any order, are resampled alike for one seed, so that differences between runs are paired. Of
    a class with few videos the interval is too narrow, as nothing tells how another video would
    have done; see `MIN_VIDEOS`.

    Args:
        metrics: see `weighted_metrics`.
        level: `frame` or `video`.
        naming, video_score: see `fmsd.metrics.table.compute_results`.
        threshold: what the validation split chose at this level.

    Raises:
        InputError: frames of several datasets or of one class, no fake video by name, an unknown
            level or metric, or a threshold that is missing.
    """
    if level not in LEVELS:
        raise InputError(f"level={level} is unknown", f"choose one of {', '.join(LEVELS)}")
    if (count := frames["dataset"].n_unique()) != 1:
        raise InputError(
            f"Videos are resampled within one dataset, and the predictions are of {count}",
            "give those of one",
        )
    ((dataset, scored),) = scores_by_dataset(frames, naming)
    videos = aggregate_videos(scored, video_score).sort("video").with_row_index("place")
    if not videos["label"].max():
        raise InputError(
            f"Every fake video of {dataset} bears the name of a real one, so none can be drawn "
            "(data.naming=folder)",
            "set data.naming=id",
        )
    items = (
        videos
        if level == "video"
        else scored.join(
            videos.select("video", "place"), on="video", how="left", maintain_order="left"
        )
    )
    score, label, place = (
        items[name].cast(kind).to_torch()
        for name, kind in (("score", pl.Float64), ("label", pl.Int64), ("place", pl.Int64))
    )
    return weighted_metrics(
        Draws(score, label, place, draw_counts((videos["label"] == 1).to_numpy(), resamples, seed)),
        metrics,
        threshold,
    )


def percentile_interval(samples: Samples, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval: what lies between equal shares of the resamples on either side.

    Args:
        confidence: in (0, 1).
    """
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def enough_videos(real: int, fake: int) -> bool:
    """Whether these counts of real and fake videos suffice for an interval."""
    return min(real, fake) >= MIN_VIDEOS


def holm_correction(p: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, so corrected that the odds of any false one among them are those of one (S. Holm, Scand. J. Stat., 1979).

    The smallest of n is multiplied by n, the next by n - 1, and so on; none becomes smaller than
    one before it, and none exceeds 1.
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def paired_difference(
    one: Samples, other: Samples, observed: float, confidence: float = 0.95
) -> Difference:
    """The difference of a metric between two runs tested on the same videos, from resamples drawn with one seed.

    The p-value is twice the share of resamples in which the difference is zero or of the rarer
    sign. One more resample is counted there, so that p is never 0 but at least 2 / (resamples + 1);
    at most it is 1.

    Args:
        one, other: of `resample_metrics`, with equal seed and number of resamples.
        observed: the metric of the one run less that of the other, on the videos themselves.
    """
    difference = one - other
    rarer = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
    return Difference(
        observed,
        *percentile_interval(difference, confidence),
        min(1.0, 2 * (rarer + 1) / (len(difference) + 1)),
    )
