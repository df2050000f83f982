"""Verdicts on test videos at the thresholds that validation data chose: how often they are wrong.

A threshold keeps its false positive rate on data like those that it was chosen on; how far it is
off on others, only their real videos show.
"""

from collections.abc import Mapping

import polars as pl
import torch

from fmsd.metrics.decision import validation_scores
from fmsd.metrics.definitions import OURS
from fmsd.metrics.operating_points import operating_points
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.score_meaning import OperatingPoint, threshold_name, wilson
from fmsd.metrics.table import (
    scores_by_dataset,
    scores_by_level,
    single_torch_thread,
)

COLUMNS = (
    *("dataset", "at", "threshold", "validation_reals", "validation_fakes"),
    *("true_positives", "false_negatives", "false_positives", "true_negatives"),
    *("false_positive_rate", "false_positive_low", "false_positive_high"),
    *("true_positive_rate", "true_positive_low", "true_positive_high"),
)
"""Columns of verdicts on videos.

`validation_reals` and `validation_fakes` count the validation videos that chose the threshold;
`low` and `high` are the ends of Wilson's 95 % intervals over videos.
"""


@single_torch_thread()
def video_points(
    validation: pl.DataFrame, video_score: str = "mean"
) -> dict[float, OperatingPoint]:
    """The thresholds of videos by false positive rate, as `fmsd.metrics.decision` has them.

    Args:
        validation: predictions on the validation split; several datasets are taken as one.
        video_score: see `fmsd.metrics.video.aggregate_videos`.

    Raises:
        InputError: predictions of one class only, or logits that are not finite.
    """
    return operating_points(*scores_by_level(validation_scores(validation), video_score)["video"])


@single_torch_thread()
def count_verdicts(
    predictions: pl.DataFrame,
    points: Mapping[float, OperatingPoint],
    naming: str = "id",
    video_score: str = "mean",
    definitions: str = OURS,
) -> pl.DataFrame:
    """The right and wrong verdicts on the videos of each dataset, a row per dataset and threshold.

    Args:
        predictions: of the test datasets.
        points: the thresholds of videos, see `video_points`.
        naming, video_score, definitions: see `fmsd.metrics.table.compute_results`.

    Raises:
        InputError: predictions of one class only, or logits that are not finite.
    """
    rows = []
    for dataset, frames in scores_by_dataset(predictions, naming):
        score, label = scores_by_level(frames, video_score, definitions)["video"]
        rows += [
            (
                *(dataset, threshold_name(rate)),
                *(point.threshold, point.reals, point.fakes),
                *_counts(score, label, point),
            )
            for rate, point in points.items()
        ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def _counts(score: Scores, label: Labels, point: OperatingPoint) -> tuple[float, ...]:
    """The numbers of verdicts and their rates, in the order of the last of `COLUMNS`."""
    called = score >= point.threshold
    true_positives = int(torch.count_nonzero(called & (label == 1)))
    false_positives = int(torch.count_nonzero(called & (label == 0)))
    fakes = int(torch.count_nonzero(label))
    reals = len(label) - fakes
    return (
        *(true_positives, fakes - true_positives),
        *(false_positives, reals - false_positives),
        *(false_positives / reals, *wilson(false_positives, reals)),
        *(true_positives / fakes, *wilson(true_positives, fakes)),
    )
