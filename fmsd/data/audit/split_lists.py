"""Checks of a copy against the official split list of its dataset."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from fmsd.console import print_table
from fmsd.data.audit.findings import Finding, nonempty
from fmsd.data.frame import REAL, Split, video_id
from fmsd.data.manifest import Manifest
from fmsd.data.sources import celebdf
from fmsd.data.split_lists import (
    LISTS,
    Kind,
    Names,
    SplitList,
    describe_names,
    names_digest,
    read_names,
)
from fmsd.errors import InputError

Origin = Literal["fmsd", "copy", "digest"]
"""Where the names of an official list come from: the package, the list in the copy, or nowhere."""

SHOWN = 5
"""Videos that are named where there are more."""


@dataclass(frozen=True)
class Comparison:
    """How the videos of a split of a copy differ from the official list.

    Args:
        origin: where the names of the list come from; by `digest` alone, which videos are missing
            or extra is not known.
        videos: the number of videos in the copy.
        listed: the number of videos that the list has for the copy's forgeries.
        equal: whether they are the same videos.
        missing: ids of listed videos that the copy lacks; None where that is not known.
        extra: ids of videos that the list does not have in this split; None where not known.
        digest: SHA-256 of the copy's ids.
    """

    dataset: str
    split: Split
    origin: Origin
    videos: int
    listed: int
    equal: bool
    missing: tuple[str, ...] | None
    extra: tuple[str, ...] | None
    digest: str

    @property
    def result(self) -> str:
        """The result as a clause."""
        if self.equal:
            return "equal"
        if self.missing is None or self.extra is None:
            return "other videos"
        parts = (("lacks", self.missing), ("adds", self.extra))
        return ", ".join(f"{verb} {describe_names(names, SHOWN)}" for verb, names in parts if names)


def compare_with_lists(manifest: Manifest, root: Path) -> list[Comparison]:
    """Compares each split of each dataset that has an official list.

    Args:
        manifest: all videos of the copy.
        root: its folder, which may hold the list.

    Raises:
        InputError: a list of the package is damaged.
    """
    columns = ["dataset", "video", "domain", "compression", "split"]
    videos = manifest.table.select(columns).drop_nulls().unique()
    return [
        comparison
        for dataset in sorted(set(videos["dataset"]) & LISTS.keys())
        for comparison in _compare_dataset(videos.filter(dataset=dataset), dataset, root)
    ]


def _compare_dataset(videos: pl.DataFrame, dataset: str, root: Path) -> Iterator[Comparison]:
    """The comparison of each split of a dataset with its list."""
    official = LISTS[dataset]
    origin, listed = official_names(official, root)
    groups = _groups(videos)
    for split, parts in official.parts.items():
        here: set[str] = set()
        wanted: set[str] = set()
        equal = True
        for (domain, compression), kind in groups.items():
            prefix = f"{video_id(dataset, domain, compression, '')}/"
            own = videos.filter(split=split, domain=domain, compression=compression)["video"]
            names = [video.removeprefix(prefix) for video in own]
            equal = equal and parts[kind].holds(names)
            here |= set(own)
            if listed is not None:
                wanted |= {prefix + name for name in listed[split][kind]}
        yield Comparison(
            dataset,
            split,
            origin,
            len(here),
            sum(parts[kind].count for kind in groups.values()),
            equal,
            None if listed is None else tuple(sorted(wanted - here)),
            None if listed is None else tuple(sorted(here - wanted)),
            names_digest(here),
        )


def _groups(videos: pl.DataFrame) -> dict[tuple[str, str], Kind]:
    """The kind of videos of each domain and compression of a dataset.

    Real videos are always among them, and fake ones even where the copy has none.
    """
    found = sorted(videos.select("domain", "compression").unique().rows())
    groups: dict[tuple[str, str], Kind] = {
        (domain, compression): "real" if domain == REAL else "fake" for domain, compression in found
    }
    for compression in {compression for _, compression in found}:
        groups.setdefault((REAL, compression), "real")
        if not any(domain != REAL for domain, other in found if other == compression):
            groups["fake", compression] = "fake"
    return groups


def official_names(official: SplitList, root: Path) -> tuple[Origin, Names | None]:
    """The names of an official list, and where they come from.

    A list in the copy counts if its digest is that of the official one.

    Raises:
        InputError: a list of the package is damaged.
    """
    if official.file is not None:
        return "fmsd", read_names(official)
    try:
        names = celebdf.listed_names(celebdf.read_test_list(root)[0])
    except InputError:  # crops come without the list; the source itself refuses a damaged one
        return "digest", None
    return ("copy", names) if official.identifies(names) else ("digest", None)


def list_findings(comparisons: Iterable[Comparison]) -> list[Finding]:
    """Splits that are not those of the official list: with other videos, or without some of it."""
    other: list[str] = []
    part: list[str] = []
    for each in comparisons:
        if not each.equal:
            examples = other if each.extra is None or each.extra else part
            examples.append(f"{each.dataset} {each.split}: {each.result}")
    return nonempty(
        Finding(
            "split_list", "not the official split", "warning", other,
            "take the official lists, or state the split beside the results",
        ),
        Finding(
            "split_list", "a part of the official split", "note", part,
            "complete the copy to compare with published results",
        ),
    )  # fmt: skip


def show_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Prints the comparisons as a table."""
    listed = list(comparisons)
    rows = [
        [each.dataset, each.split, f"{each.videos:,}", f"{each.listed:,}", each.result,
         each.digest[:12]]
        for each in listed
    ]  # fmt: skip
    print_table(
        "Official splits",
        ["dataset", "split", "videos", "official", "result", "digest"],
        rows,
        text_columns=("split", "result", "digest"),
        name="official_splits",
        records=[_record(each) for each in listed],
    )


def _record(comparison: Comparison) -> Mapping[str, object]:
    """A comparison in the document of `--json`."""
    sides = {"missing": comparison.missing, "extra": comparison.extra}
    return (
        {
            "dataset": comparison.dataset,
            "split": comparison.split,
            "list": comparison.origin,
            "videos": comparison.videos,
            "listed": comparison.listed,
            "equal": comparison.equal,
        }
        | {key: None if ids is None else len(ids) for key, ids in sides.items()}
        | {f"{key}_first": None if ids is None else ids[:SHOWN] for key, ids in sides.items()}
        | {"digest": comparison.digest}
    )
