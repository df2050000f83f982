"""A manifest of a million frames: build, write, read, validate (without touching files), filter and spread.

python benchmarks/manifest.py [--json PATH]
"""

import resource
import tempfile
import time
from pathlib import Path

import polars as pl
from harness import Row, main, row

from fmsd.data.manifest import SCHEMA, Manifest, read

VIDEOS, FRAMES = 10_000, 100


def table() -> pl.DataFrame:
    """10,000 videos of 100 frames, every second one fake."""
    number = pl.int_range(VIDEOS * FRAMES, eager=True)
    video, index = number // FRAMES, number % FRAMES
    frame = pl.DataFrame({"number": video, "index": index}).with_columns(
        label=(pl.col("number") % 2).cast(pl.Int8), dataset=pl.lit("ff++"), compression=pl.lit("c23")
    )
    frame = frame.with_columns(domain=pl.when(pl.col("label") == 0).then(pl.lit("real")).otherwise(pl.lit("Deepfakes")))
    frame = frame.with_columns(
        video=pl.format("ff++/{}/c23/{}", "domain", "number"),
        split=pl.when(pl.col("number") % 10 < 8).then(pl.lit("train")).otherwise(pl.lit("test")),
    )
    return frame.with_columns(path=pl.format("{}/{}.png", "video", "index")).select(SCHEMA.names()).cast(SCHEMA)


def measure() -> list[Row]:
    """Seconds per operation, their sum and the peak memory."""
    manifest = Manifest(table(), Path("/data"))
    seconds: dict[str, float] = {}

    def timed(name: str, start: float) -> None:
        seconds[name] = time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        start = time.perf_counter()
        manifest.write(path)
        timed("write", start)
        start = time.perf_counter()
        manifest = read(path, Path("/data"))
        timed("read", start)
    start = time.perf_counter()
    manifest.validate(files=False)
    timed("validate", start)
    start = time.perf_counter()
    manifest.where(split="train", domain=["real", "Deepfakes"])
    timed("filter", start)
    start = time.perf_counter()
    manifest.spread(32)
    timed("spread", start)
    rows = [row(f"{name}, 1 M frames", value, "s") for name, value in seconds.items()]
    rows.append(row("write, read, validate and filter", sum(value for name, value in seconds.items() if name != "spread"), "s", goal=5))
    rows.append(row("peak memory of the process, torch included", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "MB"))
    return rows


if __name__ == "__main__":
    main("A manifest of a million frames", measure)
