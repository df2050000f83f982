"""Confidence intervals and paired differences of metrics, by a bootstrap over videos.

B. Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics, 1979. Frames of a
video are alike, so videos are drawn, never frames (a cluster bootstrap). A resample is represented
by how often each video was drawn, and its metric is computed from weighted items; no resample is
ever copied.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int, UInt8
from torch import Tensor

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.metrics.calibration import BINS, bin_indices
from fmsd.metrics.definitions import OURS, probability_threshold
from fmsd.metrics.nearest_error_rate import curve_metrics
from fmsd.metrics.ranking import Curve, CurveValues, check_metrics, curve_of_counts
from fmsd.metrics.table import LEVELS, scores_by_dataset, single_torch_thread
from fmsd.metrics.video import aggregate_videos
from fmsd.metrics.video_pairs import resampled_auc

ResampledMetric = Float64[np.ndarray, " resamples"]
"""A metric of every resample."""

MIN_VIDEOS = 10
"""The fewest videos of each class for an interval, a p-value or a mark.

A bootstrap draws from the observed videos alone: with one real video, correctly ranked, every
resample is correct, and the interval is [1, 1] whatever the truth. A detector that errs on a share
of 1 - 0.05^(1/n) of all videos shows n videos without an error once in twenty times: the share is
95 % for n = 1, 26 % for n = 10. With fewer videos an interval depends more on their number than on
the detector.
"""

BLOCK = 2**19
"""Number of weights in memory at a time; their 4 MB stay in the processor's cache."""


class Difference(NamedTuple):
    """Paired difference of two runs: estimate, interval, two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Draws:
    """Scored items, and how often each video was drawn in every resample.

    Args:
        score: probability of fake.
        label: 0 real, 1 fake.
        video: column in `counts` of the item's video.
        counts: number of times that each video was drawn.
    """

    score: Float64[Tensor, " items"]
    label: Int[Tensor, " items"]
    video: Int[Tensor, " items"]
    counts: UInt8[Tensor, "resamples videos"]

    def weighted_sums(
        self, values: Float64[Tensor, "items kinds"]
    ) -> Float64[Tensor, "resamples kinds"]:
        """The sum over the items of every resample."""
        videos = self.counts.shape[1]
        sums = values.new_zeros(videos, values.shape[1]).index_add_(0, self.video, values)
        return torch.cat([counts.double() @ sums for counts in self.blocks(len(sums))])

    def blocks(self, width: int) -> Sequence[UInt8[Tensor, "block videos"]]:
        """Resample counts in chunks of at most BLOCK weights, `width` for each resample."""
        return self.counts.split(max(1, BLOCK // width))

    @property
    def one_hot_labels(self) -> Float64[Tensor, "items 2"]:
        """1 in the column of the item's label, 0 in the other."""
        return torch.nn.functional.one_hot(self.label, 2).double()

    @property
    def class_sizes(self) -> Float64[Tensor, "resamples 2"]:
        """Number of real and of fake items."""
        return self.weighted_sums(self.one_hot_labels)

    def correct(self, threshold: float) -> Float64[Tensor, "resamples 2"]:
        """Number of correctly classified real and fake items."""
        correct = (self.score >= threshold).long() == self.label
        return self.weighted_sums(self.one_hot_labels * correct[:, None])

    def curves(self) -> Iterator[Curve]:
        """The ROC curves of the resamples in blocks, with a point for every distinct score."""
        order = self.score.argsort(descending=True)
        score, video, fake = self.score[order], self.video[order], self.label[order].double()
        for counts in self.blocks(len(score)):
            # numpy gathers bytes three times as fast as torch
            weight = torch.from_numpy(counts.numpy().take(video.numpy(), 1)).double()
            fakes = (weight * fake).cumsum(1)
            yield curve_of_counts(score, weight.cumsum(1), fakes)


def accuracy(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.ranking.accuracy`."""
    return draws.correct(threshold).sum(1) / draws.class_sizes.sum(1)


def balanced_accuracy(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.ranking.balanced_accuracy`."""
    return (draws.correct(threshold) / draws.class_sizes).mean(1)


def brier(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.calibration.brier`; the threshold is unused."""
    errors = (draws.score - draws.label).square()[:, None]
    return draws.weighted_sums(errors).squeeze(1) / draws.class_sizes.sum(1)


def expected_calibration_error(draws: Draws, threshold: float) -> CurveValues:
    """See `fmsd.metrics.calibration.expected_calibration_error`; the threshold is unused."""
    bins = torch.nn.functional.one_hot(bin_indices(draws.score), BINS)
    gaps = draws.weighted_sums(bins * (draws.score - draws.label)[:, None])
    return gaps.abs().sum(1) / draws.class_sizes.sum(1)


SUM_METRICS: Mapping[str, Callable[[Draws, float], CurveValues]] = {
    "acc": accuracy,
    "bacc": balanced_accuracy,
    "acc_val": accuracy,
    "bacc_val": balanced_accuracy,
    "brier": brier,
    "ece": expected_calibration_error,
}
"""The metrics that are computed from sums over the items."""


def weighted_metrics(
    draws: Draws,
    metrics: Sequence[str],
    threshold: float | None = None,
    definitions: str = OURS,
) -> dict[str, ResampledMetric]:
    """The metrics of every resample; where all counts are 1 they are those of the items.

    Args:
        metrics: names in `fmsd.metrics.ranking.METRICS` and `THRESHOLD_METRICS`.
        threshold: the threshold of the latter.
        definitions: of the metrics, see `fmsd.metrics.definitions`.

    Raises:
        InputError: an unknown metric, or a missing threshold.
    """
    lacking = [metric for metric in check_metrics(metrics) if metric.endswith("_val")]
    if threshold is None and lacking:
        raise InputError(
            f"metric={lacking[0]} needs the threshold that validation data chose, and there is "
            "none",
            f"choose {lacking[0][:-4]}",
        )
    of_curve, even = curve_metrics(definitions), probability_threshold(definitions)
    ranking = [metric for metric in metrics if metric in of_curve]
    fast = None
    if ranking == ["auc"]:
        with single_torch_thread():
            fast = resampled_auc(draws.score, draws.label, draws.video, draws.counts)
    # allocated first, as small tensors between large ones would fragment memory
    samples = {metric: draws.score.new_empty(len(draws.counts)) for metric in ranking}
    with single_torch_thread():
        done = 0
        for curve in draws.curves() if ranking and fast is None else ():
            for metric in ranking:
                samples[metric][done : done + len(curve.true_positives)] = of_curve[metric](curve)
            done += len(curve.true_positives)
        for metric in metrics:
            if metric in SUM_METRICS:
                chosen = threshold if metric.endswith("_val") and threshold is not None else even
                samples[metric] = SUM_METRICS[metric](draws, chosen)
    if fast is not None:
        samples["auc"] = fast
    return {metric: samples[metric].numpy() for metric in metrics}


def draw_counts(
    fake: Bool[np.ndarray, " videos"], resamples: int, seed: int
) -> UInt8[Tensor, "resamples videos"]:
    """Draws videos with replacement, and returns how often each is in every resample.

    Resamples have as many real and as many fake videos as the data. A byte is enough for a count:
    it is 1 on average, and exceeds 255 with a probability below 10^-500. Counts of up to
    `KEPT_BYTES` are kept for the next run on the same videos, so they must not be changed.
    """
    if resamples * len(fake) > KEPT_BYTES:
        return _draw_counts(fake, resamples, seed)
    return _known_counts(fake.tobytes(), resamples, seed)


KEPT_BYTES = 2**23
"""Size of counts that are kept; 32 of them at most."""


@functools.lru_cache(maxsize=32)
def _known_counts(fake: bytes, resamples: int, seed: int) -> UInt8[Tensor, "resamples videos"]:
    return _draw_counts(np.frombuffer(fake, bool), resamples, seed)


def _draw_counts(
    fake: Bool[np.ndarray, " videos"], resamples: int, seed: int
) -> UInt8[Tensor, "resamples videos"]:
    rng, counts = np.random.default_rng(seed), np.empty((resamples, len(fake)), np.uint8)
    for members in (np.flatnonzero(~fake), np.flatnonzero(fake)):
        size = len(members)
        for row in counts:
            row[members] = np.bincount(rng.integers(size, size=size), minlength=size)
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
    definitions: str = OURS,
) -> dict[str, ResampledMetric]:
    """Metrics of one dataset's predictions on resamples of its videos, stratified by their label.

    At frame level a frame counts as often as its video was drawn. Predictions of the same videos,
    in any order, are resampled alike for one seed, so that differences between runs are paired.
    With few videos of a class an interval is too narrow; see `MIN_VIDEOS`.

    Args:
        metrics: see `weighted_metrics`.
        level: `frame` or `video`.
        naming, video_score, definitions: see `fmsd.metrics.table.compute_results`.
        threshold: the one chosen on validation data at this level.

    Raises:
        InputError: frames of several datasets or of one class, no fake video by name, an unknown
            level or metric, or a missing threshold.
    """
    check_choice("level", level, LEVELS)
    if (count := frames["dataset"].n_unique()) != 1:
        raise InputError(
            f"Videos are resampled within one dataset, and the predictions are of {count}",
            "give those of one",
        )
    ((dataset, scored),) = scores_by_dataset(frames, naming)
    videos = (
        aggregate_videos(scored, video_score, definitions).sort("video").with_row_index("place")
    )
    if not videos["label"].max():
        raise InputError(
            f"Every fake video of {dataset} bears the name of a real one, so none can be drawn "
            "(data.naming=folder)",
            "set data.naming=id",
        )
    items = (
        videos
        if level == "video"
        else scored.select("video", "label", "score").join(
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
        definitions,
    )


def percentile_interval(samples: ResampledMetric, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval, which leaves out equal shares of the resamples on either side.

    Args:
        confidence: in (0, 1).
    """
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def enough_videos(real: int, fake: int) -> bool:
    """Whether there are enough real and fake videos for an interval, see `MIN_VIDEOS`."""
    return min(real, fake) >= MIN_VIDEOS


def holm_correction(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values of several comparisons, in their order.

    It bounds the probability of any false rejection among them. The smallest of n is multiplied by
    n, the next by n - 1, and so on; none becomes smaller than one before it, and none exceeds 1.
    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Stat., 1979.
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def paired_difference(
    one: ResampledMetric, other: ResampledMetric, observed: float, confidence: float = 0.95
) -> Difference:
    """The difference of a metric between two runs on the same videos, from paired resamples.

    The p-value is twice the share of resamples in which the difference is zero or of the rarer
    sign. One more resample is counted there, so that p is at least 2 / (resamples + 1); it is at
    most 1.

    Args:
        one, other: results of `resample_metrics` with equal seed and number of resamples.
        observed: the metric of `one` minus that of `other`, on the videos themselves.
    """
    difference = one - other
    rarer = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
    return Difference(
        observed,
        *percentile_interval(difference, confidence),
        min(1.0, 2 * (rarer + 1) / (len(difference) + 1)),
    )
