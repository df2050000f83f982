"""The order of the training frames that `data.batches` and `data.domains` choose."""

import logging
from collections.abc import Mapping

import numpy as np
import polars as pl

from fmsd.data.loading.pairs import DomainPairs, PairRows, Pairs, match_frames
from fmsd.data.loading.sampler import UNASSIGNED, EveryDomain, Order, Shuffle
from fmsd.data.loading.shards import Shards
from fmsd.data.manifest import Manifest
from fmsd.data.mirror import check_room
from fmsd.data.pack import frame_tars
from fmsd.errors import InputError

log = logging.getLogger(__name__)

MANIPULATION = "manipulation"
"""The value of `data.domains` for which the domain of a fake frame is its forgery."""

PAIRS: Mapping[str, str | None] = {
    "pairs": None,
    "balanced_pairs": "balanced",
    "natural_pairs": "natural",
}
"""The values of `data.batches` for batches of pairs, with the frequency of domains, if any."""

SHARDS = "shards"
"""The value of `data.batches` for the order of a pack's tars."""

BATCHES = ("shuffle", SHARDS, "balanced", "natural", *PAIRS)
"""The values of `data.batches`."""

WITHOUT_DOMAINS = ("shuffle", SHARDS, "pairs")
"""The values of `data.batches` for batches that hold no domains."""


def training_domains(manifest: Manifest, batches: str, domains: str) -> list[str]:
    """The domains of the batches in the order of their ids; none for batches without domains.

    Args:
        manifest: the training frames.
        batches, domains: see `make_order`.
    """
    if batches in WITHOUT_DOMAINS:
        return []
    table = manifest.table.filter(label=1) if batches in PAIRS else manifest.table
    return domain_of_frames(table, domains).drop_nulls().unique().sort().to_list()


def domain_of_frames(table: pl.DataFrame, domains: str) -> pl.Series:
    """The name of each frame's domain; null for real frames that are dealt to domains."""
    if domains == MANIPULATION:
        return table.select(pl.when(pl.col("label") == 1).then(pl.col("domain"))).to_series()
    return table[domains].cast(pl.String)


def make_order(
    manifest: Manifest, batches: str, domains: str, size: int, seed: int, buffer: int = 6
) -> Order:
    """The order of the training frames; logs how often small domains are recycled.

    Args:
        manifest: the training frames.
        batches: one of `BATCHES`.
        domains: `MANIPULATION`, or a column of the manifest.
        size: number of frames in a batch.
        buffer: with `shards`, number of tars whose frames are mixed.

    Raises:
        InputError: a batch is too small for the domains, a domain lacks a class, there is no pair,
            or the frames are not in a pack, or in one that the cache of packs cannot hold.
    """
    if batches == SHARDS:
        return _order_of_tars(manifest, size, seed, buffer)
    tars = frame_tars(manifest.root, manifest.table["path"])
    if tars is not None:
        check_room(tars.unique().to_list(), None, "add data.batches=shards")
    if batches == "shuffle":
        return Shuffle(_forgery_ids(manifest), size, seed)
    names = training_domains(manifest, batches, domains)
    if batches in PAIRS:
        return _paired_order(manifest, PAIRS[batches], domains, names, size, seed)
    domain = _domain_ids(manifest.table, domains, names)
    label = manifest.table["label"].to_numpy().astype(np.int64)
    order = EveryDomain(label, domain, names, size, batches, seed)
    _log_repeats(
        order.repeats,
        "each fake and each real frame",
        [
            f"{name} {fake:.2f} and {real:.2f}"
            for name, (real, fake) in zip(names, order.repeats, strict=True)
        ],
    )
    return order


def _order_of_tars(manifest: Manifest, size: int, seed: int, buffer: int) -> Shards:
    """The order of a pack's tars."""
    tars = frame_tars(manifest.root, manifest.table["path"])
    if tars is None:
        raise InputError(
            f"data.batches=shards needs the tars of a pack, and {manifest.root} is none",
            "give data.batches=shuffle, or the folder or address of a pack, see fmsd pack",
        )
    names = tars.unique().sort()
    # a block, the next one, which is fetched, and the last frames of the one before
    check_room(names.to_list(), 3 * buffer, "give a smaller data.buffer")
    tar = tars.cast(pl.Enum(names)).to_physical().cast(pl.Int64).to_numpy()
    return Shards(names.to_list(), tar, _forgery_ids(manifest), size, buffer, seed)


def _paired_order(
    manifest: Manifest,
    frequency: str | None,
    domains: str,
    names: list[str],
    size: int,
    seed: int,
) -> Pairs | DomainPairs:
    """The order of the pairs; logs the number of frames that are in none."""
    pairs = match_frames(manifest.table)
    _log_unpaired(manifest, pairs)
    if frequency is None:
        return Pairs(pairs, _forgery_ids(manifest), size, seed)
    domain = _domain_ids(manifest.table[pairs.fake], domains, names)
    order = DomainPairs(pairs, domain, names, size, frequency, seed)
    _log_repeats(
        order.repeats,
        "each pair",
        [f"{name} {times:.2f}" for name, times in zip(names, order.repeats, strict=True)],
    )
    return order


def _forgery_ids(manifest: Manifest) -> np.ndarray:
    """The id of each frame's forgery, or of `real`, in alphabetical order."""
    forgery = manifest.table["domain"]
    return _domain_ids(manifest.table, "domain", forgery.unique().sort().to_list())


def _domain_ids(table: pl.DataFrame, domains: str, names: list[str]) -> np.ndarray:
    """The domain id of each frame, or `UNASSIGNED`."""
    ids = domain_of_frames(table, domains).cast(pl.Enum(names)).to_physical().cast(pl.Int64)
    return ids.fill_null(UNASSIGNED).to_numpy()


def _log_repeats(repeats: np.ndarray, what: str, often: list[str]) -> None:
    """Logs how often an epoch shows the frames of each domain, if that is far from once."""
    if repeats.max() > 1.5 or repeats.min() < 0.67:
        log.info(
            "Small domains are recycled, large ones not seen in full; times that an epoch "
            "shows %s: %s.",
            what,
            ", ".join(often),
        )


def _log_unpaired(manifest: Manifest, pairs: PairRows) -> None:
    """Logs the number of pairs, and of the training frames that are in none.

    Raises:
        InputError: there is no pair.
    """
    count = len(pairs.fake)
    fakes = manifest.table.filter(label=1).height
    if not count:
        raise InputError(
            f"For none of the {fakes} fake training frames is the real video that it was made from "
            "known and among the training videos, which batches of pairs need (data.batches=pairs, "
            "set by method=gend, too)",
            "add data.batches=shuffle; or, to train on pairs, make an older manifest again with "
            "fmsd index, older crops with fmsd extract, or give a table the column pair",
        )
    log.info(
        "Pairs: %d fake training frames are each shown with a frame of the real video that they "
        "were made from; %d fakes without one and %d real frames that are in no pair are not "
        "shown.",
        count,
        fakes - count,
        len(manifest) - fakes - len(np.unique(pairs.real)),
    )
