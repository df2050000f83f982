"""Checks of the table: parts, classes, leaks between splits, short videos."""

from collections.abc import Collection, Mapping

import polars as pl

from fmsd.data.audit.copy import IS_FILM
from fmsd.data.audit.findings import Finding, Severity, nonempty, refusal
from fmsd.data.frame import REAL, SPLITS
from fmsd.data.manifest import VIDEO_NAME, VIDEO_SOURCE, Manifest
from fmsd.errors import InputError

FAKE = "fake"
"""All forgeries together, where they are counted as one."""

LEAKS: Mapping[str, tuple[str, Severity, str]] = {
    "sources": (
        "source video in several splits",
        "fatal",
        "use the official split; a forgery belongs to the split of its sources",
    ),
    "persons": (
        "person in several splits",
        "warning",
        "where the official split is so, report it with every result; else split by person",
    ),
}
"""Check, severity and remedy where a source or a person is on both sides of a split."""


def validation_findings(manifest: Manifest) -> list[Finding]:
    """The error that would refuse the table in training, if any; no file is read."""
    try:
        manifest.validate(files=False)
    except InputError as error:
        return [refusal(error)]
    return []


def table_findings(
    manifest: Manifest,
    name: str,
    expected: Mapping[str, Mapping[str, int]],
    names: str | None = None,
    frames: int | None = None,
    train_frames: int | None = None,
    missing_domains: Collection[str] = (),
) -> list[Finding]:
    """Checks the table alone; no file is read.

    Args:
        manifest: with the column `film`.
        name: the dataset that `expected` describes.
        expected: number of videos of a whole copy by split (or `all`) and domain.
        names: the meaning of video names, see `leak_findings`.
        frames: videos with fewer frames are reported; None for none.
        train_frames: the same for training videos.
        missing_domains: domains of which the source misses videos, so that they were not left out
            on purpose.
    """
    table = video_table(manifest)
    dataset = table.filter(dataset=name)
    parts = [] if dataset.is_empty() else part_findings(dataset, expected, missing_domains)
    train = pl.col("split") == "train"
    sides = (
        ((table, frames),)
        if train_frames == frames
        else ((table.filter(train), train_frames), (table.filter(~train), frames))
    )
    short = [
        finding
        for side, requested in sides
        if requested is not None
        for finding in short_findings(side, requested)
    ]
    leaks = leak_findings(table, names)
    return [*parts, *class_findings(table), *audio_findings(table), *leaks, *short]


def video_table(manifest: Manifest) -> pl.DataFrame:
    """A row per video with its number of frames, video files not counted."""
    constant = (pl.col(name).first() for name in ("label", "dataset", "domain", "split", "audio"))
    return manifest.table.group_by("video").agg(*constant, (~IS_FILM).sum().alias("frames"))


def part_findings(
    table: pl.DataFrame,
    expected: Mapping[str, Mapping[str, int]],
    missing_domains: Collection[str] = (),
) -> list[Finding]:
    """The parts whose number of videos differs from that of a whole copy.

    Where no forgery has an expected name, all of them are counted together.

    Args:
        table: a row per video of the dataset.
        expected, missing_domains: see `table_findings`.
    """
    absent, chosen, fewer, more = [], [], [], []
    known = set(table["domain"])
    forged = known - {REAL}
    for split, domains in expected.items():
        part = table if split == "all" else table.filter(split=split)
        required_counts, counts = domains, dict(part.group_by("domain").len().rows())
        if forged and not forged & set(domains):
            required_counts, counts = _two_classes(domains), _two_classes(counts)
        for domain, whole in required_counts.items():
            count = counts.get(domain, 0)
            if count != whole:
                required = domain in {*known, REAL, FAKE, *missing_domains}
                lacking = absent if required else chosen
                examples = more if count > whole else fewer if count else lacking
                place = domain if split == "all" else f"{domain} {split}"
                examples.append(f"{place} {count:,} of {whole:,}")
    complete = "complete the copy, or report with every result what it lacks"
    return nonempty(
        Finding(
            "absent_part",
            "parts without a video",
            "fatal",
            absent,
            "complete the copy, or choose other parts of it",
        ),
        Finding(
            "absent_domain",
            "domains that are not there",
            "note",
            chosen,
            "complete the copy, unless they were left out on purpose",
        ),
        Finding("fewer_videos", "fewer videos than a whole copy", "warning", fewer, complete),
        Finding(
            "more_videos",
            "more videos than a whole copy",
            "warning",
            more,
            "remove what does not belong to the dataset",
        ),
    )


def _two_classes(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by domain with all forgeries summed."""
    forged = [count for domain, count in counts.items() if domain != REAL]
    return {domain: count for domain, count in counts.items() if domain == REAL} | (
        {FAKE: sum(forged)} if forged else {}
    )


def class_findings(table: pl.DataFrame) -> list[Finding]:
    """The splits that have only real or only fake videos.

    Args:
        table: a row per video.
    """
    sided = (
        table.group_by("dataset", "split")
        .agg(pl.col("label").max(), least=pl.col("label").min())
        .filter(pl.col("label") == pl.col("least"))
    )
    rows = sided.sort("dataset", "split").select("dataset", "split", "label").rows()
    examples = [
        f"{dataset} {split} holds only {'fake' if label else 'real'} videos"
        for dataset, split, label in rows
    ]
    remedy = "complete the copy; no AUC exists on such a split, and none can be trained on"
    return nonempty(Finding("one_class", "one class only", "warning", examples, remedy))


def audio_findings(table: pl.DataFrame) -> list[Finding]:
    """The numbers of videos under fake speech, and their labels, which are those of the images.

    Args:
        table: a row per video.
    """
    under = table.filter(audio="fake").group_by("dataset", "split")
    counts = under.agg(fake=pl.col("label").sum(), videos=pl.len()).sort("dataset", "split")
    examples = [
        f"{dataset} {split}: {videos:,} videos have fake speech; the images of {fake:,} are "
        f"labelled fake, of {videos - fake:,} real"
        for dataset, split, fake, videos in counts.rows()
    ]
    remedy = "the label is that of the images alone: a real face under fake speech is real"
    return nonempty(Finding("fake_audio", "images under fake speech", "note", examples, remedy))


def leak_findings(table: pl.DataFrame, names: str | None = None) -> list[Finding]:
    """The source videos or persons that are in several splits.

    Args:
        table: a row per video.
        names: the meaning of video names: `sources`, as `033_097` is made from the videos 033
            and 097, or `persons`, as `id0_id1_0003` shows id0 and id1, and `01__exit` shows 01;
            None if they have none.
    """
    if names is None:
        return []
    second = VIDEO_NAME.str.extract(r"^[A-Za-z]*\d+_([A-Za-z]*\d+)(?:_|$)")
    alike = VIDEO_SOURCE.str.extract(r"^([A-Za-z]*)\d") == second.str.extract(r"^([A-Za-z]*)\d")
    parsed = table.select(
        "dataset", "split", "video", first=VIDEO_SOURCE, second=pl.when(alike).then(second)
    )
    parsed = parsed.unpivot(
        ["first", "second"], index=["dataset", "split", "video"], value_name="of"
    ).drop_nulls("of")
    parts = (
        parsed.group_by("dataset", "of", "split")
        .agg(pl.col("video").min(), more=pl.col("video").n_unique() - 1)
        .sort("dataset", "of", "split")
    )
    others = (
        pl.when(pl.col("more") > 0).then(pl.format(" and {} more", "more")).otherwise(pl.lit(""))
    )
    sides = parts.group_by("dataset", "of", maintain_order=True).agg(
        places=pl.format("{}: {}{}", "split", "video", others), splits=pl.len()
    )
    crossing = sides.filter(pl.col("splits") > 1).select("of", pl.col("places").list.join("; "))
    check, severity, remedy = LEAKS[names]
    examples = [f"{of} is in {places}" for of, places in crossing.rows()]
    return nonempty(Finding("leak", check, severity, examples, remedy))


def short_findings(table: pl.DataFrame, frames: int) -> list[Finding]:
    """The videos with fewer than `frames` frames; datasets of single images are left out.

    Args:
        table: columns dataset, video and frames (0 or null where the number is not known).
    """
    few = table.filter(
        (pl.col("frames").max().over("dataset") > 1) & pl.col("frames").is_between(1, frames - 1)
    ).sort("frames", "video")
    examples = [f"{video} has {count:.0f}" for video, count in few.select("video", "frames").rows()]
    remedy = "extract them again, unless they are so short"
    check = f"videos with fewer than {frames} frames"
    return nonempty(Finding("short_videos", check, "warning", examples, remedy))


def count_videos(
    manifest: Manifest, name: str, expected: Mapping[str, Mapping[str, int]]
) -> pl.DataFrame:
    """Number of videos, frames and video files of every dataset, split and domain.

    The column `paired` has the number of fake videos whose real video is in the same split, for
    datasets with pairs, and in a row `all` their sum over the splits; `whole` the number of videos
    of a whole copy, where it is known.

    Args:
        manifest: with the column `film`.
        name: the dataset that `expected` describes; where that has numbers of all splits together,
            a row `all` compares them.
    """
    counted = [domains for domains in expected.values() if isinstance(domains, Mapping)]
    if len(counted) < len(expected) or any(
        type(count) is not int for domains in counted for count in domains.values()
    ):
        raise InputError(
            f"data.expected={dict(expected)} holds no numbers of videos by split and domain",
            "give e.g. data.expected='{train: {real: 720}}'",
        )
    whole = pl.DataFrame(
        [
            (name, split, domain, count)
            for split, domains in expected.items()
            for domain, count in domains.items()
        ],
        schema={"dataset": pl.String, "split": pl.String, "domain": pl.String, "whole": pl.Int64},
        orient="row",
    )
    keys = ["dataset", "split", "domain"]
    table, everything = manifest.table, pl.lit("all").alias("split")
    rows = pl.concat([table, table.with_columns(everything)])
    real = table.filter(domain=REAL).select("split", pair="video").unique()
    partnered = table.join(real, on=["split", "pair"], how="semi").group_by(keys)
    own = partnered.agg(pl.col("video").n_unique().cast(pl.Int64).alias("paired"))
    total = own.group_by("dataset", "domain").agg(pl.col("paired").sum())
    paired = pl.concat([own, total.with_columns(everything).select(own.columns)])
    known = manifest.table.filter(pl.col("pair") != "")["dataset"].unique().to_list()
    countable = (pl.col("domain") != REAL) & pl.col("dataset").is_in(known)
    counts = (
        rows.group_by(keys)
        .agg(
            pl.col("video").n_unique().alias("videos"),
            (~IS_FILM).sum().alias("frames"),
            IS_FILM.sum().alias("files"),
        )
        .join(paired, on=keys, how="left")
        .with_columns(paired=pl.when(countable).then(pl.col("paired").fill_null(0)))
    )
    order = pl.col("split").replace_strict(
        {split: place for place, split in enumerate(SPLITS)}, default=len(SPLITS)
    )
    joined = counts.join(whole, on=keys, how="left").sort("dataset", order, "domain")
    return joined.filter(pl.col("split").ne_missing("all") | pl.col("whole").is_not_null())
