"""What a score means: calibration, thresholds and the scores of the validation data, by level."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy import ndarray

from fmsd.metrics.operating_points import RATES, OperatingPoint, operating_point
from fmsd.metrics.post_hoc import Fit, fit_calibration
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.table import LEVELS, as_one_dataset, scores_by_dataset, single_torch_thread
from fmsd.metrics.video import aggregate_videos

QUANTILES = 1001
"""Number of quantiles that stand for the scores of a class: a percentile is exact to 0.1."""


@dataclass(frozen=True)
class ScoreMeaning:
    """What the scores of one level mean, by the validation data of a run.

    Args:
        fit: the calibration; None where a class has too few videos.
        points: thresholds by false positive rate.
        quantiles: of the scores of each class, real and fake, in rising order.
        videos: number of real and of fake videos.
    """

    fit: Fit | None
    points: Mapping[float, OperatingPoint]
    quantiles: tuple[Float64[ndarray, " quantiles"], Float64[ndarray, " quantiles"]]
    videos: tuple[int, int]

    def percentile(self, score: float, label: int) -> float:
        """The share of a class's validation scores that lie at or below a score, in per cent.

        Args:
            label: 0 for real items, 1 for fake ones.
        """
        values = self.quantiles[label]
        return 100 * float(np.searchsorted(values, score, side="right")) / len(values)

    def to_json(self) -> dict[str, Any]:
        """The meaning as a JSON object, without the scores."""
        return {
            "calibration": None
            if self.fit is None
            else {
                "map": self.fit.calibration.to_json(),
                "losses": dict(self.fit.losses),
                "before": dict(self.fit.before),
                "after": dict(self.fit.after),
            },
            "thresholds": {str(rate): asdict(point) for rate, point in self.points.items()},
            "videos": {"real": self.videos[0], "fake": self.videos[1]},
        }


@single_torch_thread()
def score_meanings(validation: pl.DataFrame, video_score: str = "mean") -> dict[str, ScoreMeaning]:
    """By level, what scores mean by the predictions on the validation split.

    Several datasets are taken as one.

    Args:
        validation: columns dataset, video, label and logit.
        video_score: see `fmsd.metrics.video.aggregate_videos`.

    Raises:
        InputError: predictions of one class only, or logits that are not finite.
    """
    ((_, frames),) = scores_by_dataset(as_one_dataset(validation), "id")
    frames = frames.with_columns(number=pl.col("video").rank("dense").cast(pl.Int64) - 1)
    videos = aggregate_videos(frames, video_score).with_row_index("number")
    counts = len(videos.filter(label=0)), len(videos.filter(label=1))
    meanings = {}
    for level, table in zip(LEVELS, (frames, videos), strict=True):
        score: Scores = torch.from_numpy(table["score"].to_numpy(writable=True))
        label: Labels = torch.from_numpy(table["label"].cast(pl.Int64).to_numpy(writable=True))
        number = torch.from_numpy(table["number"].cast(pl.Int64).to_numpy(writable=True))
        real, fake = (class_quantiles(score[label == one].numpy()) for one in (0, 1))
        meanings[level] = ScoreMeaning(
            fit_calibration(score, label, number),
            {rate: operating_point(score, label, rate) for rate in RATES},
            (real, fake),
            counts,
        )
    return meanings


def class_quantiles(scores: Float64[ndarray, " items"]) -> Float64[ndarray, " quantiles"]:
    """The scores of a class in rising order; of many, `QUANTILES` evenly spaced ones."""
    ordered = np.sort(scores)
    if len(ordered) <= QUANTILES:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, QUANTILES).round().astype(int)]
