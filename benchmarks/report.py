"""A report with its page: 60 runs on 15 test datasets of 100,000 frames, in seconds and memory.

python benchmarks/report.py [--runs N] [--datasets N] [--frames N] [--folder PATH] [--json PATH]

The runs are generated: a dataset has videos of 32 frames, a third of them real, and four forgeries;
a run has random scores on each of its frames, a validation split of 22,000 frames and thresholds.
Three seeds make a row. `fmsd report runs=... out=...` is then started as a process of its own, and
its wall time, processor time and largest resident memory are measured. A generated folder is kept
if `--folder` names it, and used again.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import Row, arguments, report, row

from fmsd.data.manifest import Manifest
from fmsd.metrics.table import LEVELS, compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.runs.folder import VALIDATION, Run

LENGTH, SEEDS, VALIDATION_FRAMES = 32, 3, 22_000
DOMAINS = ("real", "real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def manifest(dataset: str, count: int, split: str) -> pl.DataFrame:
    """The frames of a dataset."""
    video = np.arange(count) // LENGTH
    domain = np.array(DOMAINS)[video % len(DOMAINS)]
    table = pl.DataFrame({"domain": domain, "number": video, "index": np.arange(count) % LENGTH})
    name = pl.format("{}/{}/c23/{}", pl.lit(dataset), "domain", "number")
    return table.select(
        path=pl.format("{}/frames/{}.png", name, "index"),
        label=(pl.col("domain") != "real").cast(pl.Int8),
        dataset=pl.lit(dataset),
        domain="domain",
        video=name,
        index=pl.col("index").cast(pl.Int32),
        split=pl.lit(split),
        compression=pl.lit("c23"),
    )


def scored(frames: pl.DataFrame, skill: float, seed: int) -> pl.DataFrame:
    """Frames with logits, of which a video has an effect of its own."""
    rng = np.random.default_rng(seed)
    effect = np.repeat(rng.normal(size=frames.height // LENGTH + 1), LENGTH)[: frames.height]
    logit = skill * (frames["label"].to_numpy() - 0.5) + effect + rng.normal(size=frames.height)
    content = rng.integers(0, 2**63, frames.height).astype(np.uint64)
    return frames.with_columns(
        logit=pl.Series(logit.astype(np.float32)), content=pl.Series(content)
    )


def stamps(digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The facts of the tests by their stamp."""
    found = {}
    for dataset, digest in digests.items():
        for level in LEVELS:
            facts = {
                "level": level, "dataset": dataset, "manifest": digest, "protocol": "fmsd",
                "sampling": "spread", "naming": "id", "size": 224, "video_score": "mean",
                "selection": "iid", "augment": "none", "train": {"set0": "f" * 40},
            }  # fmt: skip
            found[hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]] = facts
    return found


def generate(folder: Path, runs: int, datasets: int, count: int) -> None:
    """Writes the runs."""
    tests = {f"set{number}": manifest(f"set{number}", count, "test") for number in range(datasets)}
    known = stamps({name: Manifest(frames, Path()).digest() for name, frames in tests.items()})
    keys = pl.DataFrame(
        [(facts["dataset"], facts["level"], stamp) for stamp, facts in known.items()],
        schema=["dataset", "level", "stamp"],
        orient="row",
    )
    validation = manifest("set0", VALIDATION_FRAMES, "val")
    for number in range(runs):
        method, seed = divmod(number, SEEDS)
        run, skill = Run(folder / f"run{number}"), 1 + 0.1 * method
        chosen = scored(validation, skill, number)
        run.write_table(VALIDATION, chosen)
        thresholds, parts = best_thresholds(chosen), []
        for place, (name, frames) in enumerate(tests.items()):
            predictions = scored(frames, skill, 1000 * number + place)
            run.write_predictions(name, predictions)
            parts.append(compute_results(predictions, "iid", thresholds=thresholds))
        run.write_results(pl.concat(parts).join(keys, on=["dataset", "level"], how="left"))
        overrides = [f"method.rank={method}", f"seed={seed}"]
        record = {
            "command": ["fmsd train", *overrides], "overrides": overrides, "seed": seed,
            "stamps": known, "selection": "iid", "thresholds": thresholds, "seconds": 90.0,
            "trainable": 1_500, "parameters": 30_000, "device": "cpu", "processes": 1,
            "versions": {"fmsd": "0"}, "revision": "0" * 40,
        }  # fmt: skip
        run.write_record(record)
        run.finish(record)


def measure(folder: Path, runs: int, datasets: int, frames: int) -> list[Row]:
    """One report, in a process of its own."""
    if not (folder / "run0").is_dir():
        generate(folder / "new", runs, datasets, frames)
        for run in (folder / "new").iterdir():
            run.rename(folder / run.name)
        (folder / "new").rmdir()
    out = folder / "report"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "fmsd", "report", f"runs={folder}", f"out={out}"]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    whole = (runs, datasets, frames) == (60, 15, 100_000)
    return [
        row("report, wall time", seconds, "s", 180 if whole else None),
        row("report, processor time", busy, "s"),
        row("its largest resident memory", after.ru_maxrss * 1024 / 1e9, "GB", 4),
        row("load average at the end", os.getloadavg()[0], ""),
        row("size of the page", (out / "report.html").stat().st_size / 1e6, "MB"),
    ]


if __name__ == "__main__":
    parser = arguments("A report of many runs")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--datasets", type=int, default=15)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the runs lie or are generated")
    options = parser.parse_args()
    size = options.runs, options.datasets, options.frames
    title = "{} runs, {} test datasets, {:,} frames each".format(*size)
    with tempfile.TemporaryDirectory() as temporary:
        report(title, measure(options.folder or Path(temporary), *size), options.json)
