"""Time to read a file of a million scores in each format, and to match it with a manifest.

python benchmarks/score_files.py [--json PATH]

Seconds of the processor, all threads together, as other work on the machine does not add to them.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
from harness import Row, main, row

from fmsd.data.frame import SCHEMA
from fmsd.data.manifest import Manifest
from fmsd.data.score_files import read_scores
from fmsd.data.score_matching import match_scores

VIDEOS, FRAMES = 10_000, 100
T = TypeVar("T")


def table() -> pl.DataFrame:
    """10,000 videos of 100 frames, every second one fake."""
    number = pl.int_range(VIDEOS * FRAMES, eager=True)
    frame = pl.DataFrame({"number": number // FRAMES, "index": number % FRAMES}).with_columns(
        label=(pl.col("number") % 2), dataset=pl.lit("ff++"), split=pl.lit("test"),
        compression=pl.lit(""), pair=pl.lit(""), audio=pl.lit(""),
        domain=pl.when(pl.col("number") % 2 == 0).then(pl.lit("real")).otherwise(pl.lit("swap")),
    )  # fmt: skip
    frame = frame.with_columns(video=pl.format("ff++/{}/{}", "domain", "number"))
    return (
        frame.with_columns(path=pl.format("{}/{}.png", "video", "index"))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def measure() -> list[Row]:
    """Seconds for each format and each kind of key."""
    frames = table()
    tests = {"ff++": Manifest(frames, Path("/data"))}
    scores = frames.select("path", score=pl.int_range(pl.len()) / pl.len())
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        start = time.process_time()
        result = call()
        seconds[name] = time.process_time() - start
        return result

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scores.write_csv(folder / "a.csv")
        scores.write_parquet(folder / "a.parquet")
        scores.write_ndjson(folder / "a.jsonl")
        (folder / "a.json").write_text(json.dumps(dict(scores.rows())), encoding="utf-8")
        for name in ("a.parquet", "a.json", "a.jsonl", "a.csv"):
            file = timed(
                f"read {Path(name).suffix}", lambda path=folder / name: read_scores(path, {})
            )
    timed("match paths", lambda: match_scores(file, tests, Path("a.csv")))
    names = file.table.with_columns(key=pl.col("key").str.replace_all("/", "_"))
    named = frames.with_columns(path="x/" + pl.col("path").str.replace_all("/", "_"))
    timed(
        "match names",
        lambda: match_scores(
            type(file)(names, "line", {}), {"ff++": Manifest(named, Path("/data"))}, Path("a.csv")
        ),
    )
    return [row(f"{name}, 1 M scores", value, "s", goal=10) for name, value in seconds.items()]


if __name__ == "__main__":
    main("A file of a million scores", measure)
