"""Search: all pairs of near hashes of two sets, without comparing every hash with every other.

Hashes that differ in at most 8 of 63 bits differ in at most 2 bits of one of three bands of 21, so
only those are compared that do (multi-index hashing: M. Norouzi, A. Punjani and D. J. Fleet, Fast
Search in Hamming Space with Multi-Index Hashing, CVPR 2012, arXiv 1307.2982).
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt16, UInt64
from numpy import ndarray

from fmsd.data.perceptual_hash import hash_distance

BANDS, BAND_BITS = 3, 21

COARSE_RADIUS, RADIUS = 8, 56
"""Most bits in which near-duplicates differ: among the 63 coarse ones, and among all 255.

`benchmarks/contamination.py` measures both kinds of error.
"""

BLOCK = 2**22
"""Candidate pairs that are compared at a time."""


class NearPairs(NamedTuple):
    """Pairs of near hashes.

    Args:
        one, other: their numbers in the two sets.
        distance: the number of bits in which they differ.
    """

    one: Int32[ndarray, " pairs"]
    other: Int32[ndarray, " pairs"]
    distance: UInt16[ndarray, " pairs"]


def near_pairs(
    one: UInt64[ndarray, "ones words"], other: UInt64[ndarray, "others words"]
) -> NearPairs:
    """All pairs of hashes, one of each set, that differ in few bits; each pair once.

    Args:
        one, other: hashes, see `fmsd.data.perceptual_hash.perceptual_hashes`.
    """
    found: list[NearPairs] = []
    for band in range(BANDS):
        for left, right in _candidates(one[:, 0], other[:, 0], band):
            difference = one[left, 0] ^ other[right, 0]
            close = np.bitwise_count(difference) <= COARSE_RADIUS
            close[close] = ~_earlier(difference[close], band)  # a pair counts once
            pairs = left[close], right[close]
            distance = hash_distance(one[pairs[0]], other[pairs[1]])
            kept = distance <= RADIUS
            found.append(NearPairs(pairs[0][kept], pairs[1][kept], distance[kept]))
    if not found:
        return NearPairs(*(np.empty(0, kind) for kind in (np.int32, np.int32, np.uint16)))
    return NearPairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _band(words: UInt64[ndarray, " items"], band: int) -> Int32[ndarray, " items"]:
    """The bits of one band."""
    shift = np.uint64(1 + BAND_BITS * band)  # bit 0 is always 0
    return ((words >> shift) & np.uint64(2**BAND_BITS - 1)).astype(np.int32)


def _earlier(difference: UInt64[ndarray, " pairs"], band: int) -> ndarray:
    """Whether an earlier band brought a pair up, by the bits in which its hashes differ."""
    earlier = np.zeros(len(difference), bool)
    for number in range(band):
        earlier |= np.bitwise_count(_band(difference, number)) <= COARSE_RADIUS // BANDS
    return earlier


def _masks() -> Iterator[int]:
    """The differences of two bands in at most `COARSE_RADIUS // BANDS` bits."""
    for count in range(COARSE_RADIUS // BANDS + 1):
        for bits in itertools.combinations(range(BAND_BITS), count):
            yield sum(1 << bit for bit in bits)


def _candidates(
    one: UInt64[ndarray, " ones"], other: UInt64[ndarray, " others"], band: int
) -> Iterator[tuple[Int32[ndarray, " pairs"], Int32[ndarray, " pairs"]]]:
    """Yields the pairs that differ in few bits of a band, in blocks."""
    keys = _band(one, band)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = np.zeros(2**BAND_BITS + 1, np.int32)
    np.cumsum(np.bincount(keys, minlength=2**BAND_BITS), out=starts[1:])
    wanted = _band(other, band)
    queries = np.argsort(wanted, kind="stable").astype(np.int32)  # near memory is read together
    wanted = wanted[queries]
    for mask in _masks():
        near = wanted ^ mask
        first = starts[near]
        count = starts[near + 1] - first
        hit = np.flatnonzero(count)
        first, count, asked = first[hit], count[hit], queries[hit]
        ends = np.cumsum(count, dtype=np.int64)
        done = 0
        while done < len(hit):
            before = int(ends[done - 1]) if done else 0
            upto = max(done + 1, int(np.searchsorted(ends, before + BLOCK, "right")))
            part = count[done:upto]
            offsets = np.arange(int(part.sum())) - np.repeat(np.cumsum(part) - part, part)
            places = np.repeat(first[done:upto], part) + offsets
            yield order[places], np.repeat(asked[done:upto], part)
            done = upto
