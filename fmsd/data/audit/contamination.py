"""Contamination: test frames that are training frames, or near-duplicates of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fmsd.console import track
from fmsd.data.audit.findings import Finding, nonempty
from fmsd.data.hash_search import near_pairs
from fmsd.data.image_hashes import FILES_PER_TASK, HASHES
from fmsd.data.loading.image import read_image
from fmsd.data.perceptual_hash import FLAT, MIRROR, TRIMS, WORDS, aligned_correlation
from fmsd.data.processes import map_in_processes
from fmsd.errors import InputError

SIDES = ("train", "test")

COMPARED, LEAST_CORRELATION = 4, 0.88
"""The closest frames of two videos that are compared by their pixels; the videos count as
near-duplicates if the correlation of one pair reaches this value.

`benchmarks/contamination.py` measures both kinds of error.
"""

TRIM_PAIRS = (
    (0, 0),
    *((0, trim) for trim in range(1, len(TRIMS))),
    *((trim, 0) for trim in range(1, len(TRIMS))),
)
"""The trims of a training and a test image whose hashes are compared: either may be the crop."""


MOST_UNREAD = 0.5
"""Share of the images of a side that may be unreadable; with more, nothing is known of it."""


@dataclass(frozen=True)
class Contamination:
    """What training and test frames have in common.

    Args:
        videos: a row per pair of a training and a test video: their ids and datasets, the number
            `frames` of the test video and how many are `equal` files and `near` duplicates of
            frames of the training video, the least `distance` of a near one in bits, whether it
            is `mirrored`, and an example of paths, the closest one.
        datasets: the same per pair of datasets, with the numbers of videos of the test set that
            share a frame, and of all.
        flat: number of images that show nothing and are compared by their bytes alone, by side.
        unread: path and error of images that cannot be read.
        mostly_unread: whether these are more than `MOST_UNREAD` of the images of a side.
    """

    videos: pl.DataFrame
    datasets: pl.DataFrame
    flat: dict[str, int]
    unread: list[str]
    mostly_unread: bool


def find_contamination(train: pl.DataFrame, test: pl.DataFrame, workers: int) -> Contamination:
    """Compares every test frame with every training frame.

    Args:
        train, test: the frames, with what `fmsd.data.image_hashes.read_hashes` adds; `path` is the
            place of a file, or a member of a tar.
        workers: processes that compare pixels; 0 for this one.
    """
    train, test = (
        frames.with_row_index("row").with_columns(
            number=pl.col("video").rank("dense").cast(pl.Int32)
        )
        for frames in (train, test)
    )
    found = pl.concat([_equal_files(train, test), *_near_duplicates(train, test)])
    best = found.sort(
        "distance", "mirrored", "train_row", nulls_last=False, maintain_order=True
    ).unique(["train_video", "test_row"], keep="first", maintain_order=True)
    best = _confirmed(best, train, test, workers)
    videos = _video_pairs(best, train, test)
    sides = dict(zip(SIDES, (train, test), strict=True))
    return Contamination(
        videos,
        _dataset_pairs(best, train, test),
        {side: frames.filter(pl.col("contrast") < FLAT).height for side, frames in sides.items()},
        [
            f"{path}: {error}"
            for frames in sides.values()
            for path, error in frames.drop_nulls("error").select("path", "error").iter_rows()
        ],
        any(
            frames.height - frames["error"].null_count() > MOST_UNREAD * frames.height
            for frames in sides.values()
        ),
    )


def _equal_files(train: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """The test frames whose bytes are those of a training frame, once per training video."""
    same = ["size", "content"]
    known = train.drop_nulls("content").unique([*same, "number"], keep="first", maintain_order=True)
    both = test.drop_nulls("content").join(known, on=same, suffix="_train")
    return both.select(
        train_video=pl.col("number_train"),
        test_row=pl.col("row"),
        train_row=pl.col("row_train"),
        distance=pl.lit(None, pl.UInt16),
        mirrored=pl.lit(False),
        train_trim=pl.lit(0),
        test_trim=pl.lit(0),
    )


def _near_duplicates(train: pl.DataFrame, test: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yields near-duplicates by each pair of trims, as they are and mirrored."""
    train, test = (frames.filter(pl.col("contrast") >= FLAT) for frames in (train, test))
    for train_trim, test_trim in TRIM_PAIRS:
        one, ones = _distinct_hashes(train, train_trim)
        other, others = _distinct_hashes(test, test_trim)
        for mirrored in (False, True):
            pairs = near_pairs(one, other ^ MIRROR if mirrored else other)
            found = pl.DataFrame(
                {"one": pairs.one, "other": pairs.other, "distance": pairs.distance}
            )
            first = ones.unique(["hash", "number"], keep="first", maintain_order=True)
            yield (
                found.join(first, left_on="one", right_on="hash")
                .join(others, left_on="other", right_on="hash", suffix="_test")
                .select(
                    train_video=pl.col("number"),
                    test_row=pl.col("row_test"),
                    train_row=pl.col("row"),
                    distance=pl.col("distance"),
                    mirrored=pl.lit(mirrored),
                    train_trim=pl.lit(train_trim),
                    test_trim=pl.lit(test_trim),
                )
                .sort("distance", "train_row")
                .unique(["train_video", "test_row"], keep="first", maintain_order=True)
            )


class Comparison(NamedTuple):
    """Two images whose hashes are near, and how they were hashed."""

    train: str
    test: str
    train_trim: int
    test_trim: int
    mirrored: bool


def correlation(pair: Comparison) -> float:
    """The correlation of two images; 0 where one can no longer be read."""
    try:
        train, test = read_image(pair.train), read_image(pair.test)
    except InputError:
        return 0.0
    trims = TRIMS[pair.train_trim], TRIMS[pair.test_trim]
    return aligned_correlation(train, test, trims, pair.mirrored)


def _confirmed(
    found: pl.DataFrame, train: pl.DataFrame, test: pl.DataFrame, workers: int
) -> pl.DataFrame:
    """The equal files, and the near frames of videos whose closest frames correlate."""
    near = found.drop_nulls("distance").join(
        test.select("number", test_row="row", test_path="path"),
        on="test_row",
        maintain_order="left",
    )
    videos = ["train_video", "number"]
    closest = (
        near.sort("distance", maintain_order=True)
        .group_by(videos, maintain_order=True)
        .head(COMPARED)
        .join(
            train.select(train_row="row", train_path="path"), on="train_row", maintain_order="left"
        )
    )
    columns = ("train_path", "test_path", "train_trim", "test_trim", "mirrored")
    pairs = [Comparison(*row) for row in closest.select(columns).iter_rows()]
    processes = min(workers, len(pairs) // FILES_PER_TASK + 1)
    values = map_in_processes(correlation, pairs, processes, 0.0, FILES_PER_TASK)
    measured = closest.with_columns(
        correlation=pl.Series(
            list(track(values, "Comparing images", len(pairs), "pairs")), dtype=pl.Float64
        )
    )
    alike = measured.filter(pl.col("correlation") >= LEAST_CORRELATION).select(videos).unique()
    kept = near.join(alike, on=videos, how="semi", maintain_order="left")
    return pl.concat([found.filter(pl.col("distance").is_null()), kept.select(found.columns)])


def _distinct_hashes(frames: pl.DataFrame, trim: int) -> tuple[np.ndarray, pl.DataFrame]:
    """The different hashes of frames, and the number of each frame's hash among them.

    Returns:
        Hashes; columns hash, row and number (of the video).
    """
    words = HASHES[trim * WORDS : (trim + 1) * WORDS]
    distinct = frames.select(words).unique(maintain_order=True).with_row_index("hash")
    numbered = frames.select("row", "number", *words).join(
        distinct, on=words, how="left", maintain_order="left"
    )
    hashes = distinct.select(words).to_numpy().astype(np.uint64).reshape(-1, WORDS)
    return hashes, numbered.select(pl.col("hash").cast(pl.Int32), "row", "number")


def _video_pairs(best: pl.DataFrame, train: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """See `Contamination.videos`."""
    lengths = test.group_by("number").agg(frames=pl.len())
    known, tested = (
        frames.select(
            "number",
            **{f"{side}_row": "row", f"{side}_dataset": "dataset"},
            **{side: "video", f"{side}_path": "path"},
        )
        for side, frames in zip(SIDES, (train, test), strict=True)
    )
    joined = best.join(known.drop("number"), on="train_row").join(tested, on="test_row")
    equal = pl.col("distance").is_null()
    return (
        joined.sort("distance", "test_row", nulls_last=False, maintain_order=True)
        .group_by("train_video", "number", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in ("train_dataset", "test_dataset")),
            *(pl.col(side).first() for side in SIDES),
            equal=equal.sum(),
            near=(~equal).sum(),
            distance=pl.col("distance").min(),
            mirrored=pl.col("mirrored").first(),
            train_path=pl.col("train_path").first(),
            test_path=pl.col("test_path").first(),
        )
        .join(lengths, on="number", how="left", maintain_order="left")
        .sort("equal", "near", "test", "train", descending=[True, True, False, False])
        .drop("train_video", "number")
    )


def _dataset_pairs(best: pl.DataFrame, train: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """See `Contamination.datasets`; pairs without a common frame have zeros."""
    joined = best.join(train.select(train_row="row", train="dataset"), on="train_row").join(
        test.select("number", test_row="row", test="dataset"), on="test_row"
    )
    frames = joined.group_by("train", "test", "test_row", "number").agg(
        equal=pl.col("distance").is_null().any()
    )
    counts = frames.group_by("train", "test").agg(
        equal=pl.col("equal").sum(),
        near=(~pl.col("equal")).sum(),
        videos=pl.col("number").n_unique(),
    )
    whole = test.group_by("dataset").agg(frames=pl.len(), all_videos=pl.col("number").n_unique())
    every = (
        train.select(train="dataset").unique().join(whole.rename({"dataset": "test"}), how="cross")
    )
    return (
        every.join(counts, on=["train", "test"], how="left")
        .with_columns(pl.col("equal", "near", "videos").fill_null(0))
        .sort("train", "test")
        .select("train", "test", "equal", "near", "frames", "videos", "all_videos")
    )


def contamination_findings(found: Contamination) -> list[Finding]:
    """Equal files are fatal, since a test refuses them; near-duplicates are warnings."""
    equal = found.videos.filter(pl.col("equal") > 0)
    near = found.videos.filter(pl.col("equal") == 0)
    remedy = "leave these videos out of the training or out of the test, and report it"
    flat = [
        f"{count:,} images of the {side} frames show nothing"
        for side, count in found.flat.items()
        if count
    ]
    return nonempty(
        Finding(
            "contamination",
            "training files among the test frames",
            "fatal",
            [
                f"{row['test']} = {row['train']}: {row['equal']} of {row['frames']} frames "
                f"({row['test_path']} = {row['train_path']})"
                for row in equal.iter_rows(named=True)
            ],
            remedy,
        ),
        Finding(
            "contamination",
            "near-duplicates of training frames",
            "warning",
            [
                f"{row['test']} ~ {row['train']}: {row['near']} of {row['frames']} frames, "
                f"{row['distance']} of 255 bits apart{', mirrored' if row['mirrored'] else ''} "
                f"({row['test_path']} ~ {row['train_path']})"
                for row in near.iter_rows(named=True)
            ],
            "look at them; " + remedy,
        ),
        Finding(
            "unreadable_files",
            "unreadable files",
            "fatal" if found.mostly_unread else "warning",
            found.unread,
            "restore them from the dataset, for they were compared with nothing; the frames of a "
            "manifest are looked for in its own folder",
        ),
        Finding(
            "flat_images", "flat images", "note", flat, "they are compared by their bytes alone"
        ),
    )
