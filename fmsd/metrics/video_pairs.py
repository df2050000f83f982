"""The AUC of many resamples of videos, from comparisons of their frames by pairs of videos.

The AUC is a mean over pairs of a fake and a real frame, and all pairs of the same two videos have
the same weight in a resample. So frames are compared once for all resamples, and the AUC of each is
a product of its counts with a matrix of comparisons. All sums are whole numbers that their types
hold exactly, so the values equal those of the ROC curves bit by bit.
"""

import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

BUCKETS = 512
"""Number of ranges of scores; frames of different ranges are compared by counting."""

MOST_PAIRS = 2**24
"""Most pairs of frames within the ranges, which are compared one by one."""

MOST_ENTRIES, ENTRIES_PER_ITEM = 2**23, 64
"""Most entries of the matrix; with more per item, the curves cost less."""


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
    order = score.argsort(stable=True)
    score, label, video = score[order], label[order], video[order]
    rank = torch.searchsorted(score, score)  # that of the first of equal scores
    reals, fakes = (
        (rank[label == value], *video[label == value].unique(return_inverse=True))
        for value in (0, 1)
    )
    entries = len(reals[1]) * len(fakes[1])
    if entries > min(MOST_ENTRIES, ENTRIES_PER_ITEM * len(score)):
        return None
    wins = _wins((reals[0], reals[2]), (fakes[0], fakes[2]), len(score))
    if wins is None:
        return None
    drawn = [counts[:, side[1]].double() for side in (reals, fakes)]
    sizes = [
        own @ torch.bincount(side[2]).double()
        for own, side in zip(drawn, (reals, fakes), strict=True)
    ]
    # no sum is larger than if every fake frame won
    kind = _exact_type(2 * int(sizes[1].max()) * int(torch.bincount(reals[2]).max()))
    won = (drawn[1].to(kind) @ wins.to(kind)).double()
    return (won * drawn[0]).sum(1) / 2 / (sizes[0] * sizes[1])


Side = tuple[Int[Tensor, " _"], Int[Tensor, " _"]]
"""The ranks of the frames of one class, in rising order, and the number of each one's video."""


def _wins(reals: Side, fakes: Side, items: int) -> Float[Tensor, "fakes reals"] | None:
    """Twice the number of frames of each fake video above those of each real one; ties count once.

    Returns:
        None for too many pairs within ranges of scores, as where most scores are equal.
    """
    (real_rank, real_video), (fake_rank, fake_video) = reals, fakes
    real_bucket, fake_bucket = (rank * BUCKETS // items for rank in (real_rank, fake_rank))
    first = torch.searchsorted(real_bucket, fake_bucket)
    near = torch.searchsorted(real_rank, fake_rank, right=True) - first  # in its range, not above
    pairs = int(near.sum())
    if pairs > MOST_PAIRS:
        return None
    real_counts, fake_counts = (
        torch.bincount(video * BUCKETS + bucket, minlength=(int(video.max()) + 1) * BUCKETS)
        for video, bucket in ((real_video, real_bucket), (fake_video, fake_bucket))
    )
    real_counts, fake_counts = (counts.view(-1, BUCKETS) for counts in (real_counts, fake_counts))
    below = real_counts.cumsum(1) - real_counts
    kind = _exact_type(int(fake_counts.sum(1).max()) * int(real_counts.sum(1).max()))
    above = fake_counts.to(kind) @ below.to(kind).T
    fake = torch.repeat_interleave(near)
    real = torch.arange(pairs) + torch.repeat_interleave(first - near.cumsum(0) + near, near)
    weight = 1.0 + (real_rank[real] < fake_rank[fake]).double()
    place = fake_video[fake] * len(real_counts) + real_video[real]
    return 2 * above.double() + torch.bincount(place, weight, above.numel()).view(above.shape)


def _exact_type(largest: int) -> torch.dtype:
    """The faster type that holds whole numbers up to this one exactly."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if exact and largest < 2**24 else torch.float64
