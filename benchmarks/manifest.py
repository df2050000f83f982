"""Time and memory of the operations on a manifest of a million frames.

python benchmarks/manifest.py [--json PATH]

It is written, read, validated (no files touched) and filtered, its frames are spread and located,
and frames are collected from a source.

Memory is the high-water mark of the resident memory: that of the process, and how far building,
writing, reading, validating and filtering raise it above that of the imports, most of which is
torch.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import polars as pl
from harness import Row, main, row

from fmsd.data.entries import from_entries
from fmsd.data.frame import SCHEMA, Frame
from fmsd.data.loading.pairs import match_frames
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.pack import MARK, PLACES, TAR_BLOCK

VIDEOS, FRAMES = 10_000, 100
T = TypeVar("T")


def table() -> pl.DataFrame:
    """10,000 videos of 100 frames, every second one the fake of the one before."""
    number = pl.int_range(VIDEOS * FRAMES, eager=True)
    video, index = number // FRAMES, number % FRAMES
    frame = pl.DataFrame({"number": video, "index": index}).with_columns(
        label=(pl.col("number") % 2).cast(pl.Int8),
        dataset=pl.lit("ff++"),
        compression=pl.lit("c23"),
    )
    frame = frame.with_columns(
        domain=pl.when(pl.col("label") == 0).then(pl.lit("real")).otherwise(pl.lit("Deepfakes"))
    )
    frame = frame.with_columns(
        video=pl.format("ff++/{}/c23/{}", "domain", "number"),
        split=pl.when(pl.col("number") % 10 < 8).then(pl.lit("train")).otherwise(pl.lit("test")),
        pair=pl.when(pl.col("label") == 1)
        .then(pl.format("ff++/real/c23/{}", pl.col("number") - 1))
        .otherwise(pl.lit("")),
    )
    return (
        frame.with_columns(path=pl.format("{}/{}.png", "video", "index"))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def frames() -> Iterator[Frame]:
    """The same frames as a source yields them."""
    for number in range(VIDEOS):
        label, split = number % 2, "train" if number % 10 < 8 else "test"
        domain = "Deepfakes" if label else "real"
        video = f"ff++/{domain}/c23/{number}"
        folder = Path("/data") / video
        for index in range(FRAMES):
            yield Frame(folder / f"{index}.png", label, "ff++", domain, video, index, split, "c23")  # pyright: ignore[reportArgumentType]


def peak() -> float:
    """The process's largest resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure() -> list[Row]:
    """Seconds per operation, the sum of those that have a goal, and the peak memory."""
    imported = peak()
    manifest = Manifest(table(), Path("/data"))
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = call()
        seconds[name] = time.perf_counter() - start
        return result

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        timed("write", lambda: manifest.write(folder / "manifest.parquet"))
        manifest = timed("read", lambda: read_manifest(folder / "manifest.parquet", Path("/data")))
        timed("validate", lambda: manifest.validate(files=False))
        timed("filter", lambda: manifest.where(split="train", domain=["real", "Deepfakes"]))
        total, raised = sum(seconds.values()), peak() - imported
        timed("spread", lambda: manifest.sample_frames(32))
        timed("pairs", lambda: match_frames(manifest.table))
        timed("files", manifest.files)
        manifest.table.select(
            "path",
            tar=pl.lit("00000.tar"),
            offset=pl.int_range(pl.len()) * 65536 + TAR_BLOCK,
            size=pl.lit(50_000),
        ).write_parquet(folder / PLACES)
        (folder / MARK).touch()
        timed("files, packed", Manifest(manifest.table, folder).files)
    timed("collect, from Frame objects", lambda: from_entries(frames(), Path("/data")))
    rows = [row(f"{name}, 1 M frames", value, "s") for name, value in seconds.items()]
    rows.append(row("write, read, validate and filter", total, "s", goal=5))
    rows.append(row("their peak memory above that of the imports", raised, "MB", goal=500))
    rows.append(row("peak memory of the process, torch included", peak(), "MB"))
    return rows


if __name__ == "__main__":
    main("A manifest of a million frames", measure)
