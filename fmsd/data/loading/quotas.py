"""Quotas: the number of members of each cell in a batch, and the members that fill them.

A cell is a class of a domain, see `fmsd.data.loading.sampler.EveryDomain`, or a domain of pairs,
see `fmsd.data.loading.pairs`.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def mean_repeats(
    counts: Int[np.ndarray, " cells"], size: int, batches: int, frequency: str
) -> Float[np.ndarray, " cells"]:
    """Mean number of times that an epoch takes a member of each cell, see `cell_quotas`."""
    quota = apportion(counts, size) if frequency == "natural" else size / len(counts)
    return batches * quota / counts


def cell_quotas(
    counts: Int[np.ndarray, " cells"], size: int, batches: int, frequency: str, epoch: int
) -> Int[np.ndarray, "batches cells"]:
    """Number of members of each cell in each batch of an epoch.

    Args:
        counts: number of members of each cell.
        size: number of members in a batch.
        batches: number of batches in an epoch.
        frequency: `balanced` or `natural`, see `fmsd.data.loading.sampler.EveryDomain`.
    """
    if frequency == "natural":
        return np.tile(apportion(counts, size), (batches, 1))
    cells = np.arange(len(counts))
    share, rest = divmod(size, len(cells))
    numbers = epoch * batches + np.arange(batches)
    return share + ((cells - rest * numbers[:, None]) % len(cells) < rest)


def fill_batches(
    members: Sequence[Int[np.ndarray, " _"]],
    quotas: Int[np.ndarray, "batches cells"],
    seed: tuple[int, int],
) -> tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]:
    """Members of the cells by quota, ordered by batch and cell, and the cell of each.

    Args:
        members: those of each cell.
        seed: the seed and the epoch.
    """
    streams = []
    for cell, values in enumerate(members):
        rng = np.random.default_rng([*seed, cell + 1])
        streams.append(values[recycle(len(values), quotas[:, cell], rng)])
    cells = np.repeat(np.tile(np.arange(len(members)), len(quotas)), quotas.ravel())
    filled = np.empty(len(cells), np.int64)
    filled[np.argsort(cells, kind="stable")] = np.concatenate(streams)
    return filled, cells


def apportion(counts: Int[np.ndarray, " cells"], size: int) -> Int[np.ndarray, " cells"]:
    """Splits `size` in proportion to the counts by largest remainders, with at least 1 for each."""
    shares, free = np.ones_like(counts), np.ones(len(counts), bool)
    while True:
        left = size - int((~free).sum())
        whole, rest = np.divmod(left * counts[free], counts[free].sum())
        if whole.all():
            break
        free[np.flatnonzero(free)[whole == 0]] = False
    whole[np.argsort(-rest, kind="stable")[: left - whole.sum()]] += 1
    shares[free] = whole
    return shares


def recycle(
    count: int, quotas: Int[np.ndarray, " batches"], rng: np.random.Generator
) -> Int[np.ndarray, " places"]:
    """Indices below `count` for all batches, from one random permutation after the other.

    No batch has an index twice unless its quota exceeds `count`.

    Args:
        quotas: number of indices of each batch.
    """
    ends = quotas.cumsum()
    begins, total = ends - quotas, int(ends[-1])
    order = rng.permuted(np.tile(np.arange(count), (math.ceil(total / count), 1)), axis=1).ravel()
    borders = np.arange(count, total, count)
    batch = np.searchsorted(ends, borders, side="right")
    torn = (begins[batch] < borders) & (quotas[batch] <= count)
    for border, begin, end in zip(
        borders[torn], begins[batch][torn], ends[batch][torn], strict=True
    ):
        # indices that the batch has before the border move behind those that it takes after it
        head = order[border : border + end - begin]
        repeated = (head[:, None] == order[begin:border]).any(1)
        head[:] = np.concatenate([head[~repeated], head[repeated]])
    return order[:total]
