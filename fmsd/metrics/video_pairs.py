"""The AUC of many resamples of videos, from comparisons of their frames by pairs of videos.

The AUC is a mean over pairs of a fake and a real frame, and all pairs of the same two videos have
the same weight in a resample. So frames are compared once for all resamples, and the AUC of each is
a product of its counts with a matrix of comparisons. All sums are whole numbers that their types
hold exactly, so the values equal those of the ROC curves bit by bit.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor
from torch.nn import functional

BUCKETS = 1024
"""Number of ranges of scores; frames of different ranges are compared by counting."""

MOST_PAIRS = 2**24
"""Most pairs of frames within the ranges, which are compared one by one."""

MOST_ENTRIES, ENTRIES_PER_ITEM = 2**23, 64
"""Most entries of the matrix; with more per item, the curves cost less."""


class Side(NamedTuple):
    """The frames of one class.

    Args:
        videos: the numbers of the videos that have some.
        place: the place among them of each frame's video.
        rank: of each frame's score, in rising order; equal scores have that of the first.
        sizes: the number of frames of each video.
    """

    videos: Int[Tensor, " videos"]
    place: Int[Tensor, " frames"]
    rank: Int[Tensor, " frames"]
    sizes: Int[Tensor, " videos"]


def resampled_auc(
    score: Float[Tensor, " items"],
    label: Int[Tensor, " items"],
    video: Int[Tensor, " items"],
    counts: UInt8[Tensor, "resamples videos"],
) -> Float64[Tensor, " resamples"] | None:
    """The AUC of each resample; None where curves cost less.

    Args:
        label: 0 real, 1 fake.
        video: column in `counts` of the item's video.
        counts: number of times that each video was drawn.
    """
    entries = video[label == 0].unique().numel() * video[label == 1].unique().numel()
    if entries > min(MOST_ENTRIES, ENTRIES_PER_ITEM * len(score)):
        return None
    order = score.argsort()
    score, label, video = score[order], label[order], video[order]
    first = torch.cat([label.new_ones(1).bool(), score.diff() != 0])
    rank = torch.where(first, torch.arange(len(score)), 0).cummax(0).values
    real, fake = (_side(label == value, video, rank, counts.shape[1]) for value in (0, 1))
    # no sum is larger than if every fake frame were above every real one
    largest = int(counts.max()) * len(fake.rank) * 2 * int(real.sizes.max())
    if largest >= 2**24:  # closer, and slower
        drawn = counts[:, fake.videos].double() @ fake.sizes.double()
        largest = int(drawn.max()) * 2 * int(real.sizes.max())
    wins = _wins(real, fake, len(score), _exact_type(largest))
    if wins is None:
        return None
    reals, fakes = (counts[:, side.videos].to(wins.dtype) for side in (real, fake))
    pairs = (reals @ real.sizes.to(wins.dtype)).double() * (
        fakes @ fake.sizes.to(wins.dtype)
    ).double()
    return (fakes @ wins).double().mul_(reals).sum(1) / 2 / pairs


def _side(
    chosen: Tensor, video: Int[Tensor, " items"], rank: Int[Tensor, " items"], videos: int
) -> Side:
    """The chosen frames."""
    own = video[chosen]
    sizes = torch.bincount(own, minlength=videos)
    present = sizes > 0
    place = present.cumsum(0) - 1
    return Side(present.nonzero().flatten(), place[own], rank[chosen], sizes[present])


def _wins(
    real: Side, fake: Side, items: int, kind: torch.dtype
) -> Float[Tensor, "fakes reals"] | None:
    """Twice the number of frames of each fake video above those of each real one; ties count once.

    Args:
        kind: a type that holds all of them exactly.

    Returns:
        None for too many pairs within ranges of scores, as where most scores are equal.
    """
    real_bucket, fake_bucket = (side.rank * BUCKETS // items for side in (real, fake))
    first = torch.searchsorted(real_bucket, fake_bucket)
    near = torch.searchsorted(real.rank, fake.rank, right=True) - first  # in its range, not above
    pairs = int(near.sum())
    if pairs > MOST_PAIRS:
        return None
    below = torch.zeros(BUCKETS, len(real.videos), dtype=kind)  # frames in lower ranges
    counts = torch.bincount(real_bucket * len(real.videos) + real.place, minlength=below.numel())
    torch.cumsum(counts.view(below.shape)[:-1], 0, dtype=kind, out=below[1:])
    # a video has frames in few of the ranges, so rows are added rather than a product formed
    wins = functional.embedding_bag(
        fake_bucket[fake.place.argsort(stable=True)],
        below,
        fake.sizes.cumsum(0) - fake.sizes,
        mode="sum",
    )
    one = torch.repeat_interleave(near)
    other = torch.arange(pairs) + (first - near.cumsum(0) + near)[one]
    weight = 1 + (real.rank[other] < fake.rank[one]).to(kind)
    place = (fake.place * len(real.videos))[one] + real.place[other]
    return wins.mul_(2).add_(torch.bincount(place, weight, wins.numel()).view(wins.shape))


def _exact_type(largest: int) -> torch.dtype:
    """The faster type that holds whole numbers up to this one exactly."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if exact and largest < 2**24 else torch.float64
