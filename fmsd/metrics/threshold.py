"""Decision thresholds, chosen on validation data."""

import polars as pl
import torch

from fmsd.metrics.ranking import Labels, Scores, roc_curve
from fmsd.metrics.table import (
    as_one_dataset,
    scores_by_dataset,
    scores_by_level,
    single_torch_thread,
)


@single_torch_thread()
def best_thresholds(validation: pl.DataFrame, video_score: str = "mean") -> dict[str, float]:
    """By level, the threshold of the highest balanced accuracy on validation predictions.

    Several datasets are taken as one.

    Args:
        video_score: see `fmsd.metrics.video.aggregate_videos`.

    Raises:
        InputError: predictions of one class only, logits that are not finite, or an unknown video
            score.
    """
    ((_, frames),) = scores_by_dataset(as_one_dataset(validation), "id")
    return {
        level: best_threshold(*items)
        for level, items in scores_by_level(frames, video_score).items()
    }


def best_threshold(score: Scores, label: Labels) -> float:
    """The threshold of the highest balanced accuracy; of several such thresholds, the highest.

    It lies midway between neighbouring scores, or the lowest score and 0, so that rounding of
    scores does not matter. The curve's first point, at which nothing is fake, is left out. Use it
    on validation data: chosen on test data, it would be optimistic. W. J. Youden, Index for rating
    diagnostic tests, Cancer, 1950.
    """
    curve = roc_curve(score, label)
    reals, fakes = curve.false_positives, curve.true_positives
    gain = (fakes * reals[-1] - reals * fakes[-1])[1:]  # whole numbers, so that ties are ties
    above = curve.threshold[1:]
    next_lower = torch.cat([above[1:], above.new_zeros(1)])
    middle = (above + next_lower) / 2
    middle = torch.where(middle > next_lower, middle, above)  # neighbours in float64 have no middle
    return float(middle[gain == gain.max()][0])
