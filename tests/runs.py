"""Folders of finished runs with random predictions, for reports."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fmsd.data.manifest import Manifest
from fmsd.metrics.table import LEVELS, compute_results
from fmsd.runs.folder import Run

CORRUPTIONS = {"jpeg": (1, 3, 5), "blur": (1, 3, 5)}

FORGERIES = {"ff": ("swap", "puppet"), "celeb": ("synthesis",), "dfdc": ("swap", "morph")}


def frames(dataset: str, inverted: Sequence[str], seed: int, shift: float = 1.0) -> pl.DataFrame:
    """Scored frames of a dataset; the forgeries in `inverted` score below the reals."""
    rng = np.random.default_rng([seed, len(dataset)])
    rows = []
    for domain in ("real", *FORGERIES[dataset]):
        for video in range(12):
            for index in range(3):
                mean = 0.0 if domain == "real" else -1.5 if domain in inverted else shift
                name = f"{dataset}/{domain}/{video}"
                rows.append(
                    (
                        f"{name}/{index}.png",
                        int(domain != "real"),
                        dataset,
                        domain,
                        name,
                        index,
                        "test",
                        "",
                        rng.normal(mean, 1),
                    )
                )
    columns = (
        "path",
        "label",
        "dataset",
        "domain",
        "video",
        "index",
        "split",
        "compression",
        "logit",
    )
    return pl.DataFrame(rows, schema=columns, orient="row").cast({"logit": pl.Float32})


def stamped(tests: Mapping[str, pl.DataFrame], **facts: Any) -> dict[str, dict[str, Any]]:
    """The facts of tests by their stamp."""
    found = {}
    for dataset, predictions in tests.items():
        digest = Manifest(predictions, Path()).digest()
        for level in LEVELS:
            own = {
                "level": level,
                "dataset": dataset,
                "manifest": digest,
                "protocol": "fmsd",
                "sampling": "uniform",
                "naming": "id",
            }
            own |= {
                "size": 224,
                "video_score": "mean",
                "selection": "iid",
                "augment": "none",
                "train": {"ff": "f" * 40},
            } | facts
            found[hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]] = own
    return found


def written(
    run: Run, tests: Mapping[str, pl.DataFrame], facts: Mapping[str, Any], record: Mapping[str, Any]
) -> Run:
    """Writes what a test leaves in a folder."""
    for dataset, predictions in tests.items():
        run.write_predictions(dataset, predictions)
    stamps = stamped(tests, **facts)
    keys = pl.DataFrame(
        [(own["dataset"], own["level"], stamp) for stamp, own in stamps.items()],
        schema=["dataset", "level", "stamp"],
        orient="row",
    )
    table = compute_results(pl.concat(tests.values()), str(facts.get("selection", "iid"))).join(
        keys, on=["dataset", "level"], maintain_order="left"
    )
    run.write_results(table)
    run.write_record(
        {
            "command": ["fmsd train", "-m", "data=ff"],
            "stamps": stamps,
            "selection": facts.get("selection", "iid"),
            "seconds": 90.0,
        }
        | {
            "trainable": 1_500,
            "parameters": 30_000,
            "device": "cpu",
            "processes": 1,
            "versions": {"fmsd": "0"},
            "revision": "0" * 40,
        }
        | record
    )
    return run


def sealed(run: Run) -> Run:
    """A run that was written by hand, as one whose record has the digests of its files."""
    run.finish(run.record())
    return run


def finished(
    folder: Path,
    overrides: Sequence[str],
    seed: int,
    inverted: Sequence[str] = (),
    datasets: Sequence[str] = ("ff", "celeb"),
    facts: Mapping[str, Any] | None = None,
    shift: float = 1.0,
    **record: Any,
) -> Run:
    """The folder of a run that was tested."""
    tests = {
        dataset: frames(dataset, inverted, seed + 10 * len(inverted), shift) for dataset in datasets
    }
    return written(
        Run(folder),
        tests,
        facts or {},
        {"overrides": [*overrides, f"seed={seed}"], "seed": seed} | record,
    )


def specialist_runs(folder: Path) -> Path:
    """Two seeds of a specialist that is inverted on one forgery, and a merge that was tested on one
    dataset.
    """
    for seed in (0, 1):
        finished(
            folder / f"swap{seed}",
            ["data=ff", "data.domains=[swap]"],
            seed,
            inverted=("puppet",),
        )
    finished(
        folder / "merge",
        ["data=ff", "merger=average"],
        0,
        datasets=("ff",),
        merged=["swap0", "swap1"],
    )
    return folder


def method_runs(folder: Path) -> Path:
    """Two methods, two seeds each, tested on the training dataset and on two others."""
    for seed in (0, 1):
        for method, shift in {"fmsd": 2.0, "lora": 0.3}.items():
            finished(
                folder / f"{method}{seed}",
                [f"method={method}"],
                seed,
                datasets=("ff", "celeb", "dfdc"),
                shift=shift,
            )
    return folder


def lines(text: str) -> list[list[str]]:
    """The cells of the first Markdown table in a text."""
    return [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def evaluation(
    run: Path,
    name: str,
    dataset: str,
    seed: int,
    when: int,
    corruptions: Mapping[str, Sequence[int]] | None = None,
    keep: Callable[[pl.DataFrame], pl.DataFrame] = lambda table: table,
    **facts: Any,
) -> Run:
    """A later test of a run, also under the severities of some corruptions.

    Args:
        keep: selects the frames that were tested on.
    """
    record = json.loads((run / "run.json").read_text())
    tests = {dataset: keep(frames(dataset, (), seed))}
    time = datetime.fromtimestamp(when, UTC).isoformat()
    found = written(
        Run(run / "evaluations" / name),
        tests,
        facts,
        record | {"run": str(run), "time": time, "stamps": stamped(tests, **facts)},
    )
    if corruptions:
        clean = found.results()
        stamps = clean.select("level", "stamp").unique()
        parts = [clean.with_columns(corruption=pl.lit("none"), severity=pl.lit(0))]
        for corruption, severities in corruptions.items():
            for severity in severities:
                predictions = keep(corrupted_frames(dataset, seed, severity))
                found.write_predictions(f"{corruption}_{severity}/{dataset}", predictions)
                table = compute_results(predictions, str(record["selection"]))
                parts.append(
                    table.join(stamps, on="level", maintain_order="left").with_columns(
                        corruption=pl.lit(corruption), severity=pl.lit(severity)
                    )
                )
        found.write("corruptions.csv", pl.concat(parts).write_csv())
    return found


def corrupted_frames(dataset: str, seed: int, severity: int) -> pl.DataFrame:
    """Scored frames of a dataset under a corruption: the classes lie closer together."""
    return frames(dataset, (), seed, shift=1 - 0.15 * severity)
