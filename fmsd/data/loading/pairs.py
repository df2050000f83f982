"""Batches of pairs: each fake frame with a frame of the real video that it was made from.

Yermakov, Cech, Matas and Fritz, "Deepfake Detection that Generalizes Across Benchmarks" (GenD),
WACV 2026, arXiv 2508.06248, finds that training on fakes together with the real videos that they
were made from keeps a detector from learning shortcuts. The paper chooses the training videos so;
its public code shuffles their frames. That a batch holds both members of each pair is our reading,
and so is that each member is augmented by itself, as in all other batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from fmsd.data.loading.quotas import cell_quotas, fill_batches, mean_repeats
from fmsd.data.loading.sampler import Places
from fmsd.errors import InputError


class PairRows(NamedTuple):
    """The rows of pairs: of each fake frame, and of its real one."""

    fake: Int[np.ndarray, " pairs"]
    real: Int[np.ndarray, " pairs"]

    @property
    def frames(self) -> int:
        """Number of different frames."""
        return len(np.unique(self.fake)) + len(np.unique(self.real))


def match_frames(table: pl.DataFrame) -> PairRows:
    """Pairs each fake frame whose real video is in the table with a frame of that video.

    It is the frame with the nearest index: a fake follows its real video frame by frame, from the
    first on, and may end before it.

    Args:
        table: a manifest's rows.

    Returns:
        The pairs in the order of their fakes; a real frame may be in several.
    """
    rows = table.with_row_index("row").select("row", "label", "video", "pair", "index")
    real = rows.filter(label=0).select("row", "index", pair="video")
    codes = real.select("pair").unique().sort("pair").with_row_index("code")
    # the keys of two videos are further apart than any two of one video
    key = pl.col("code").cast(pl.Int64) * 2**33 + pl.col("index")
    real = real.join(codes, on="pair").with_columns(key=key).sort("key", "row")
    fake = rows.filter(label=1).join(codes, on="pair").with_columns(key=key).sort("row")
    near = nearest(real["key"].to_numpy(), fake["key"].to_numpy())
    chosen = (fake["row"], real["row"][near])
    return PairRows(*(row.to_numpy().astype(np.int64) for row in chosen))


def nearest(
    known: Int[np.ndarray, " known"], values: Int[np.ndarray, " values"]
) -> Int[np.ndarray, " values"]:
    """The position of the nearest known value of each value; the smaller one of two.

    Args:
        known: in ascending order.
    """
    after = np.searchsorted(known, values).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    return np.where(values - known[before] <= known[after] - values, before, after)


@dataclass(frozen=True)
class Pairs:
    """Every pair once per epoch; a batch holds each fake beside its real frame.

    Args:
        pairs: see `match_frames`.
        domain: the domain id of each row.
        size: number of frames in a batch.

    Raises:
        InputError: a batch has an odd number of frames.
    """

    group: ClassVar[int] = 2

    pairs: PairRows
    domain: Int[np.ndarray, " rows"]
    size: int
    seed: int

    def __post_init__(self) -> None:
        """Checks that a batch consists of whole pairs."""
        check_even(self.size)

    @property
    def batches(self) -> int:
        """Number of batches in an epoch; all are full but the last."""
        return math.ceil(len(self.pairs.fake) / (self.size // 2))

    @property
    def frames(self) -> int:
        """Number of different frames in the pairs."""
        return self.pairs.frames

    def __call__(self, epoch: int) -> Places:
        """A permutation of the pairs."""
        rng = np.random.default_rng([self.seed, epoch])
        rows = side_by_side(self.pairs, rng.permutation(len(self.pairs.fake)))
        return rows, self.domain[rows]


@dataclass(frozen=True)
class DomainPairs:
    """Batches with pairs of every domain; both frames of a pair are in the domain of its fake.

    The pairs of a domain are taken as `EveryDomain` takes the frames of a cell. An epoch has as
    many batches as one of `Pairs`, all of full size.

    Args:
        pairs: see `match_frames`.
        domain: the domain id of each pair.
        names: the domains in the order of their ids.
        size: number of frames in a batch.
        frequency: `balanced` gives each domain an equal share of a batch, `natural` one in
            proportion to its number of pairs, see `EveryDomain`.

    Raises:
        InputError: a batch has an odd number of frames or fewer pairs than domains, or a domain has
            no pair.
    """

    group: ClassVar[int] = 2

    pairs: PairRows
    domain: Int[np.ndarray, " pairs"]
    names: Sequence[str]
    size: int
    frequency: str
    seed: int

    def __post_init__(self) -> None:
        """Checks that every domain has pairs, and every batch a place for a pair of each."""
        check_even(self.size)
        for name, count in zip(self.names, self.counts, strict=True):
            if not count:
                raise InputError(
                    f"The domain {name!r} has no fake training frame whose real video is among the "
                    "training frames, but a batch holds pairs of each domain",
                    "leave it out with data.train_forgeries=[...] or data.train=[...], or choose "
                    "data.batches=pairs or balanced",
                )
        if self.size // 2 < len(self.names):
            raise InputError(
                f"data.batch_size={self.size} has no room for a pair of each of {len(self.names)} "
                "domains",
                f"raise it to at least {2 * len(self.names)}, or choose another data.domains or "
                "data.batches=pairs",
            )

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(len(self.domain) / (self.size // 2))

    @property
    def frames(self) -> int:
        """Number of different frames in the pairs; an epoch may not show all of them."""
        return self.pairs.frames

    @property
    def counts(self) -> Int[np.ndarray, " domains"]:
        """Number of pairs of each domain."""
        return np.bincount(self.domain, minlength=len(self.names))

    @property
    def repeats(self) -> Float[np.ndarray, " domains"]:
        """Mean number of times that an epoch takes a pair of each domain."""
        return mean_repeats(self.counts, self.size // 2, self.batches, self.frequency)

    def __call__(self, epoch: int) -> Places:
        """The batches of an epoch, ordered by domain, so that processes share each one evenly."""
        members = np.split(np.argsort(self.domain, kind="stable"), np.cumsum(self.counts)[:-1])
        quotas = cell_quotas(self.counts, self.size // 2, self.batches, self.frequency, epoch)
        chosen, domains = fill_batches(members, quotas, (self.seed, epoch))
        return side_by_side(self.pairs, chosen), np.repeat(domains, 2)


def side_by_side(pairs: PairRows, chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " places"]:
    """The rows of chosen pairs, each fake followed by its real frame."""
    return np.stack([pairs.fake[chosen], pairs.real[chosen]], axis=1).ravel()


def check_even(size: int) -> None:
    """Refuses a batch that does not consist of whole pairs.

    Raises:
        InputError: the number of frames is odd.
    """
    if size % 2:
        raise InputError(
            f"data.batch_size={size} is odd, but the batches consist of pairs",
            "give an even number",
        )
