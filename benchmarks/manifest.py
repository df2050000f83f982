"""Time and memory of the operations on a manifest of a million frames, or more.

python benchmarks/manifest.py [--rows 1000000] [--json PATH]

It is written, read, validated (no files touched) and filtered, one epoch of batches is drawn in
each order of training, its frames are spread and located, and frames are collected from a source.

Times are processor time of all threads, which other work on the machine changes little. Memory is
the high-water mark of the resident memory: that of the process, and how far building, writing,
reading, validating and filtering raise it above that of the imports, most of which is torch. The
goals are those of a million and of ten million frames.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import polars as pl
from harness import Row, arguments, report, row

from fmsd.data.entries import from_entries
from fmsd.data.frame import SCHEMA, Frame
from fmsd.data.loading.pairs import match_frames
from fmsd.data.loading.sampler import ProcessBatches
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.pack import MARK, PLACES, TAR_BLOCK
from fmsd.engine.training_order import MANIPULATION, make_order

FRAMES = 100
"""Frames of a video."""

BATCH = 32
GOALS = {1_000_000: (5, 500), 10_000_000: (60, 4000)}
"""By number of rows: the goal in seconds, and in MB."""

T = TypeVar("T")


def table(rows: int) -> pl.DataFrame:
    """Videos of 100 frames, every second one the fake of the one before."""
    number = pl.int_range(rows, eager=True)
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
        audio=pl.lit(""),
        pair=pl.when(pl.col("label") == 1)
        .then(pl.format("ff++/real/c23/{}", pl.col("number") - 1))
        .otherwise(pl.lit("")),
    )
    return (
        frame.with_columns(path=pl.format("{}/{}.png", "video", "index"))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def frames(rows: int) -> Iterator[Frame]:
    """The same frames as a source yields them."""
    for number in range(rows // FRAMES):
        label, split = number % 2, "train" if number % 10 < 8 else "test"
        domain = "Deepfakes" if label else "real"
        video = f"ff++/{domain}/c23/{number}"
        folder = Path("/data") / video
        for index in range(FRAMES):
            yield Frame(folder / f"{index}.png", label, "ff++", domain, video, index, split, "c23")  # pyright: ignore[reportArgumentType]


def peak() -> float:
    """The process's largest resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def draw_epoch(manifest: Manifest, batches: str) -> None:
    """One epoch of batches, as the loader of a training gives them to its processes."""
    order = make_order(manifest, batches, MANIPULATION, BATCH, 0)
    for _ in ProcessBatches(order):
        pass


def measure(rows: int) -> list[Row]:
    """Seconds per operation, the sum of those that have a goal, and the peak memory."""
    imported = peak()
    manifest = Manifest(table(rows), Path("/data"))
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        start = time.process_time()
        result = call()
        seconds[name] = time.process_time() - start
        peaks[name] = peak()
        return result

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        timed("write", lambda: manifest.write(folder / "manifest.parquet"))
        manifest = timed("read", lambda: read_manifest(folder / "manifest.parquet", Path("/data")))
        timed("validate", lambda: manifest.validate(files=False))
        timed("filter", lambda: manifest.where(split="train", domain=["real", "Deepfakes"]))
        total, raised = sum(seconds.values()), peak() - imported
        train = manifest.where(split="train")
        for batches in ("shuffle", "balanced", "pairs"):
            timed(f"epoch, {batches}", lambda batches=batches: draw_epoch(train, batches))
        with_epochs, whole = sum(seconds.values()), peak()
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
    timed("collect, from Frame objects", lambda: from_entries(frames(rows), Path("/data")))
    big = rows > min(GOALS)
    small, large = GOALS[min(GOALS)], GOALS[max(GOALS)]
    return [
        *(row(f"{name}, {rows / 1e6:g} M frames", value, "s") for name, value in seconds.items()),
        *(row(f"peak memory until {name}", value, "MB") for name, value in peaks.items()),
        row("write, read, validate and filter", total, "s", None if big else small[0]),
        row("their peak memory above that of the imports", raised, "MB", None if big else small[1]),
        row("the same and three epochs", with_epochs, "s", large[0] if big else None),
        row("peak memory, torch included", whole, "MB", large[1] if big else None),
    ]


if __name__ == "__main__":
    title = "A manifest of many frames"
    parser = arguments(title)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of frames")
    options = parser.parse_args()
    report(title, measure(options.rows), options.json)
