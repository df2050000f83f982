"""What a score means: fits calibration and thresholds to the validation data, by level."""

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy import ndarray

from fmsd.metrics.operating_points import operating_points
from fmsd.metrics.post_hoc import fit_calibration
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.score_meaning import ScoreMeaning, VideoCounts
from fmsd.metrics.table import LEVELS, as_one_dataset, scores_by_dataset, single_torch_thread
from fmsd.metrics.video import aggregate_videos

QUANTILES = 1001
"""Number of quantiles that stand for the scores of a class: a percentile is exact to 0.1."""


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
    frames = validation_scores(validation)
    frames = frames.with_columns(number=pl.col("video").rank("dense").cast(pl.Int64) - 1)
    videos = aggregate_videos(frames, video_score).with_row_index("number")
    counts = count_videos(validation)
    meanings = {}
    for level, table in zip(LEVELS, (frames, videos), strict=True):
        score: Scores = torch.from_numpy(table["score"].to_numpy(writable=True))
        label: Labels = torch.from_numpy(table["label"].cast(pl.Int64).to_numpy(writable=True))
        number = torch.from_numpy(table["number"].cast(pl.Int64).to_numpy(writable=True))
        real, fake = (class_quantiles(score[label == one].numpy()) for one in (0, 1))
        fit = fit_calibration(score, label, number)
        meanings[level] = ScoreMeaning(
            *((fit.calibration, fit.losses, fit.before, fit.after) if fit else (None, {}, {}, {})),
            operating_points(score, label),
            (real, fake),
            counts,
        )
    return meanings


def count_videos(validation: pl.DataFrame) -> VideoCounts:
    """The numbers of real and of fake videos, and of those with one frame only.

    Args:
        validation: columns dataset, video and label.
    """
    videos = validation.group_by("dataset", "video").agg(pl.col("label").min(), frames=pl.len())
    real, fake = (len(videos.filter(label=label)) for label in (0, 1))
    return VideoCounts(real, fake, len(videos.filter(frames=1)))


def validation_scores(validation: pl.DataFrame) -> pl.DataFrame:
    """The scores of validation frames, all datasets as one, in an order that scores alone decide.

    Sums over them do not depend on the order of the rows.

    Raises:
        InputError: predictions of one class only, or logits that are not finite.
    """
    ((_, frames),) = scores_by_dataset(as_one_dataset(validation), "id")
    return frames.sort("label", "score", maintain_order=True)


def class_quantiles(scores: Float64[ndarray, " items"]) -> Float64[ndarray, " quantiles"]:
    """The scores of a class in rising order; of many, `QUANTILES` evenly spaced ones."""
    ordered = np.sort(scores)
    if len(ordered) <= QUANTILES:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, QUANTILES).round().astype(int)]
