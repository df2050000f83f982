"""Groups of a dataset's videos by any column: AUC, error rates and gaps, with intervals.

The gap is the largest minus the smallest value of the groups. Equally good groups have a gap above
0, too, as chance alone makes their values differ: the more and the smaller the groups, the larger.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from numpy import ndarray

from fmsd.metrics.cross_auc import sorted_auc
from fmsd.metrics.definitions import OURS
from fmsd.metrics.interval import Draws, ResampledMetric, draw_counts, weighted_metrics
from fmsd.metrics.video import aggregate_videos

UNKNOWN = "(unknown)"
"""The group of the items whose value is not known."""

VALUES = ("auc", "fpr", "tpr")
"""What is measured of a group: AUC, and false and true positive rate at a threshold."""


Scores = Float64[ndarray, "_"]
"""Scores of videos of one class."""


@dataclass(frozen=True)
class Group:
    """The scores of a group's videos, in the order of their names.

    Args:
        real: of its reals; may be none.
        fake: of its fakes; may be none.
        all_reals: of all reals of the dataset, where they are what its fakes are compared with;
            None where they are compared with its own.
    """

    real: Scores
    fake: Scores
    all_reals: Scores | None = None

    @property
    def compared(self) -> Scores:
        """The scores of the reals that its fakes are compared with."""
        return self.real if self.all_reals is None else self.all_reals

    def measured(self, threshold: float | None) -> dict[str, float]:
        """The values that exist, by their name in `VALUES`.

        Args:
            threshold: a score from it on is called fake; None leaves out the rates.
        """
        values = {}
        if len(self.compared) and len(self.fake):
            values["auc"] = sorted_auc(np.sort(self.compared), np.sort(self.fake))
        for name, scores in (("fpr", self.real), ("tpr", self.fake)):
            if threshold is not None and len(scores):
                values[name] = float((scores >= threshold).mean())
        return values

    def counts(self, value: str) -> tuple[int, ...]:
        """The numbers of videos that a value is computed from: reals and fakes, or one of them."""
        needed = {"auc": (self.compared, self.fake), "fpr": (self.real,), "tpr": (self.fake,)}
        return tuple(len(scores) for scores in needed[value])


def divides_both_classes(frames: pl.DataFrame, column: str) -> bool:
    """Whether some known value of a column is one of real and of fake frames alike."""
    known = frames.filter(pl.col(column) != UNKNOWN)
    real, fake = (set(known.filter(label=label)[column].unique()) for label in (0, 1))
    return not real.isdisjoint(fake)


def split_groups(
    frames: pl.DataFrame, column: str, video_score: str = "mean", definitions: str = OURS
) -> dict[str, Group]:
    """The groups of a dataset's videos by the values of a column, sorted.

    Where the column divides both classes, the fakes of a group are compared with its own reals,
    else with all reals of the dataset. A video with frames of several values is in several groups.

    Args:
        frames: scored frames of one dataset; columns video, label, score and the column, as text.
        video_score, definitions: see `fmsd.metrics.video.aggregate_videos`.
    """
    own = divides_both_classes(frames, column)
    parts = {
        (str(value), int(label)): part
        for (value, label), part in frames.group_by(column, "label", maintain_order=True)
    }
    no_frames, reals = frames.clear(), frames.filter(label=0)
    # by folder, a fake may bear the name of a real video, and then counts as real
    mixed = frames.group_by("video").agg(pl.col("label").n_unique())["label"].max() != 1
    all_reals = None if own else _scores(reals, video_score, definitions)[0]
    groups = {}
    for value in sorted({value for value, _ in parts}):
        own_reals, fakes = (parts.get((value, label), no_frames) for label in (0, 1))
        real, fake = _scores(pl.concat([own_reals, fakes]), video_score, definitions)
        compared = all_reals
        if mixed and not own:
            compared, fake = _scores(pl.concat([reals, fakes]), video_score, definitions)
        groups[value] = Group(real, fake, compared)
    return groups


def _scores(frames: pl.DataFrame, video_score: str, definitions: str) -> tuple[Scores, Scores]:
    """The scores of real and of fake videos, in the order of their names."""
    videos = aggregate_videos(frames, video_score, definitions).sort("video")
    real, fake = (videos.filter(label=label)["score"].to_numpy() for label in (0, 1))
    return real, fake


def resample_groups(
    groups: Mapping[str, Group], threshold: float | None, resamples: int, seed: str
) -> dict[tuple[str, str], ResampledMetric]:
    """The values of groups on resamples of their videos, by value and group.

    Videos are drawn within each group and class; reals that several groups are compared with are
    drawn once for all of them.

    Args:
        threshold: see `Group.measured`.
        resamples: number of resamples.
        seed: groups of the same sizes are resampled alike for one seed, so that detectors on the
            same videos can be compared.
    """
    found = {}
    for name, group in groups.items():
        whose = name if group.all_reals is None else "all"
        real = _drawn(len(group.real), resamples, f"{seed} real of {name}")
        fake = _drawn(len(group.fake), resamples, f"{seed} fake of {name}")
        values = group.measured(threshold)
        if "auc" in values:
            compared = _drawn(len(group.compared), resamples, f"{seed} real of {whose}")
            items = torch.from_numpy(np.concatenate([group.compared, group.fake]))
            number = torch.arange(len(items))
            label = (number >= len(group.compared)).long()
            draws = Draws(items, label, number, torch.cat([compared, fake], dim=1))
            found["auc", name] = weighted_metrics(draws, ["auc"])["auc"]
        for value, scores, counts in (("fpr", group.real, real), ("tpr", group.fake, fake)):
            if value in values and threshold is not None:
                called = (scores >= threshold).astype(np.float64)
                found[value, name] = counts.numpy() @ called / len(scores)
    return found


def _drawn(videos: int, resamples: int, seed: str) -> torch.Tensor:
    """How often each video of one class is drawn in every resample."""
    return draw_counts(np.zeros(videos, dtype=bool), resamples, zlib.crc32(seed.encode()))
