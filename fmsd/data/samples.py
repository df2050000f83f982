"""Samples of test frames for pictures: a few images of each domain, or frames of all domains."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from fmsd.data.frame import REAL
from fmsd.data.manifest import Manifest, evenly_spaced
from fmsd.data.name_overrides import as_names
from fmsd.errors import InputError

log = logging.getLogger(__name__)

MAX_DOMAINS = 24
"""The largest number of domains that one picture of heat maps shows."""


def limit_domains(
    tests: Mapping[str, Manifest], domains: int | Sequence[str | int] | None
) -> dict[str, Manifest]:
    """The datasets with the domains that a picture shows; datasets without any are left out.

    Args:
        domains: to be shown; None for all. Beyond `MAX_DOMAINS` the last ones are left out, real
            frames come first.

    Raises:
        InputError: a domain is in none of the datasets.
    """
    requested = None if domains is None else as_names(domains, "domains")
    known = sorted({name for manifest in tests.values() for name in manifest.table["domain"]})
    if wrong := [name for name in requested or () if name not in known]:
        raise InputError(
            f"domains={wrong[0]} is in no test dataset", f"choose of {', '.join(known)}"
        )
    limited = {}
    for dataset, manifest in tests.items():
        names = [part["domain"][0] for part in by_domain(manifest.table)]
        names = [name for name in names if requested is None or name in requested]
        if len(names) > MAX_DOMAINS:
            log.warning(
                "The heat maps of %s show %d domains and leave out %d; domains=[NAME,...] chooses "
                "them.",
                dataset,
                MAX_DOMAINS,
                len(names) - MAX_DOMAINS,
            )
        if names:
            shown = pl.col("domain").is_in(names[:MAX_DOMAINS])
            limited[dataset] = replace(manifest, table=manifest.table.filter(shown))
    return limited


def choose_images(manifest: Manifest, images: int, seed: int) -> Manifest:
    """One random frame of each of at most `images` videos of each domain, real ones first.

    The videos of a domain, in their order, are divided into equal stretches; one video is drawn
    from each.
    """
    rng, rows = np.random.default_rng(seed), []
    table = manifest.table.with_row_index("row").sort("video", "index")
    for part in by_domain(table):
        videos = part["video"].unique(maintain_order=True).to_list()
        for stretch in np.array_split(np.arange(len(videos)), min(images, len(videos))):
            frames = part.filter(video=videos[rng.choice(stretch)])
            rows.append(rng.choice(frames["row"].to_numpy()))
    return replace(manifest, table=manifest.table[rows])


def choose_frames(tests: Mapping[str, Manifest], frames: int) -> dict[str, Manifest]:
    """At most `frames` frames over all datasets, equally many of each domain, evenly spread.

    A domain with fewer frames gives all of them.

    Raises:
        InputError: `frames` is less than the number of domains, or less than four frames are left.
    """
    parts = {
        name: by_domain(manifest.table.sort("video", "index")) for name, manifest in tests.items()
    }
    share = equal_share([part.height for domains in parts.values() for part in domains], frames)
    chosen = {
        name: replace(
            tests[name],
            table=pl.concat([part[evenly_spaced(part.height, share)] for part in domains])
            if share
            else tests[name].table[:0],
        )
        for name, domains in parts.items()
    }
    if not share or sum(map(len, chosen.values())) < 4:
        raise InputError(
            f"frames={frames} leaves too few frames of {sum(map(len, parts.values()))} domains",
            "raise it, or test on more frames",
        )
    return chosen


def equal_share(counts: Sequence[int], total: int) -> int:
    """Largest per-group cap whose total stays within `total`."""
    left, share = total, 0
    for place, count in enumerate(sorted(counts)):
        if count * (len(counts) - place) > left:
            return left // (len(counts) - place)
        left, share = left - count, count
    return share


def by_domain(table: pl.DataFrame) -> list[pl.DataFrame]:
    """The frames of each domain, real ones first."""
    names = sorted(table["domain"].unique(), key=lambda domain: (domain != REAL, domain))
    return [table.filter(domain=name) for name in names]
