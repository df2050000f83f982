"""Whether scores rank fakes below reals, so that a high one may mean real."""

from typing import NamedTuple

import polars as pl

from fmsd.metrics.interval import enough_videos, percentile_interval, resample_metrics
from fmsd.metrics.table import compute_results


class Ranking(NamedTuple):
    """The AUC over the videos of one dataset.

    Args:
        auc: in [0, 1].
        interval: at 95 %, over videos; None with too few of a class, see
            `fmsd.metrics.interval.MIN_VIDEOS`.
    """

    auc: float
    interval: tuple[float, float] | None

    @property
    def is_inverted(self) -> bool:
        """Whether the whole interval lies below 0.5."""
        return self.interval is not None and self.interval[1] < 0.5

    def __str__(self) -> str:
        """The AUC with its interval."""
        if self.interval is None:
            return f"{self.auc:.3f}"
        low, high = self.interval
        return f"{self.auc:.3f} [{low:.3f}, {high:.3f}]"


def rank_videos(frames: pl.DataFrame, naming: str, video_score: str) -> Ranking:
    """The ranking of the videos of one dataset.

    Args:
        frames: scored frames of real and fake videos.
        naming, video_score: see `fmsd.metrics.table.compute_results`.

    Raises:
        InputError: frames of one class only.
    """
    table = compute_results(frames, "", naming=naming, video_score=video_score, metrics=["auc"])
    row = table.row(by_predicate=pl.col("level") == "video", named=True)
    reals = row["n_real_videos"]
    if not enough_videos(reals, row["n_videos"] - reals):
        return Ranking(row["value"], None)
    samples = resample_metrics(frames, ["auc"], "video", naming=naming, video_score=video_score)
    return Ranking(row["value"], percentile_interval(samples["auc"]))
