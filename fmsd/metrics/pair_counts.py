"""The AUC of frames on resamples of their videos, from the pairs of frames that videos win.

The AUC is the share of pairs of a fake and a real frame in which the fake scores higher. How many
pairs the frames of one video win against those of another one does not depend on the resample, so
they are counted once, and a resample is a product of matrices instead of a sum over all frames.
"""

import itertools

import numpy as np
from jaxtyping import Float32, Float64, Int, UInt8
from numpy import ndarray

BLOCK = 256
"""Frames of neighbouring ranks whose pairs are compared one by one."""

EXACT = 2**23
"""Below it, float32 holds every half exactly."""

WORTH = 32
"""Pairs of videos for each frame up to which counting them is faster than sorting frames."""


def resampled_auc(
    score: Float64[ndarray, " frames"],
    label: Int[ndarray, " frames"],
    video: Int[ndarray, " frames"],
    counts: UInt8[ndarray, "resamples videos"],
) -> Float64[ndarray, " resamples"] | None:
    """The AUC of every resample, exact, ties included; None where this would be slow or inexact.

    Args:
        label: 0 real, 1 fake.
        video: column in `counts` of the frame's video.
        counts: number of times that each video was drawn.
    """
    videos = counts.shape[1]
    frames = [np.bincount(video[label == one], minlength=videos) for one in (0, 1)]
    real, fake = (np.flatnonzero(own) for own in frames)
    if len(real) * len(fake) > WORTH * len(score):
        return None
    drawn = counts.astype(np.float64)
    sizes = [drawn @ own for own in frames]
    largest = sizes[1].max() * frames[0].max()
    wins = won_pairs(score, label, video, real, fake) if largest < EXACT else None
    if wins is None:
        return None
    weighted = drawn[:, fake].astype(np.float32) @ wins
    total = np.einsum("ij,ij->i", weighted, drawn[:, real], dtype=np.float64)
    return total / (sizes[0] * sizes[1])


def won_pairs(
    score: Float64[ndarray, " frames"],
    label: Int[ndarray, " frames"],
    video: Int[ndarray, " frames"],
    real: Int[ndarray, " reals"],
    fake: Int[ndarray, " fakes"],
) -> Float32[ndarray, "fakes reals"] | None:
    """How many pairs of frames each fake video wins against each real one; ties count half.

    Frames are cut into blocks by rank, equal scores into one block: pairs of different blocks are
    products of counts, and those within a block are compared. None where a block of equal scores is
    too large for that.

    Args:
        real, fake: the videos with real and with fake frames.
    """
    order = np.argsort(score, kind="stable")
    score, label = score[order], label[order]
    starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
    sizes = np.diff(np.append(starts, len(score)))
    if sizes.max() > BLOCK:
        return None
    block = np.repeat(starts // BLOCK, sizes)
    place = np.zeros(video.max() + 1, np.int64)
    place[real] = np.arange(len(real))
    column = place[video[order]]
    place[fake] = np.arange(len(fake))
    line = place[video[order]]
    blocks = int(block[-1]) + 1
    is_fake = label == 1
    in_block = []
    for where, of, width in ((is_fake, line, len(fake)), (~is_fake, column, len(real))):
        flat = np.bincount(block[where] * width + of[where], minlength=blocks * width)
        in_block.append(flat.reshape(blocks, width).astype(np.float32))
    below = in_block[1].cumsum(axis=0) - in_block[1]
    wins = in_block[0].T @ below
    ends = np.searchsorted(block, np.arange(blocks + 1))
    places, values = [], []
    for start, end in itertools.pairwise(ends):
        fakes = np.flatnonzero(is_fake[start:end]) + start
        reals = np.flatnonzero(~is_fake[start:end]) + start
        difference = np.sign(score[fakes][:, None] - score[reals])
        places.append((line[fakes][:, None] * len(real) + column[reals]).ravel())
        values.append(((1 + difference) / 2).ravel())
    within = np.bincount(np.concatenate(places), np.concatenate(values), wins.size)
    return wins + within.reshape(wins.shape).astype(np.float32)
