"""The values that loggers receive at the end of a run, under the same names for all loggers."""

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl
import torch

from fmsd.figures.curves import roc_rates
from fmsd.figures.simplify import simplify_line
from fmsd.metrics.coverage import cover, policy
from fmsd.metrics.definitions import OURS
from fmsd.metrics.table import with_scores
from fmsd.metrics.video import aggregate_videos, group_by_folder
from fmsd.runs.folder import CORRUPTIONS, Run, read_results
from fmsd.runs.predictions import read_predictions

Curves = Mapping[int, Mapping[str, float]]
"""Values of robustness curves, by severity and name."""


def result_values(results: pl.DataFrame) -> dict[str, float]:
    """The values of a result table, named `test/DATASET/LEVEL_METRIC`."""
    return {
        f"test/{row['dataset']}/{row['level']}_{row['metric']}": row["value"]
        for row in results.iter_rows(named=True)
        if row["value"] is not None
    }


def cost_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The cost of a training: trainable parameters, total parameters, minutes."""
    return {
        "cost/trainable": record["trainable"],
        "cost/parameters": record["parameters"],
        "cost/minutes": record["seconds"] / 60,
    }


def stamps_by_dataset(results: pl.DataFrame) -> dict[str, dict[str, str]]:
    """The protocol stamps of a result table, by dataset and level."""
    stamps: dict[str, dict[str, str]] = {}
    rows = results.select("dataset", "level", "stamp").unique(maintain_order=True).rows()
    for dataset, level, stamp in rows:
        stamps.setdefault(dataset, {})[level] = stamp
    return stamps


def robustness_values(run: Run, without: Collection[str] = ()) -> dict[int, dict[str, float]]:
    """The video AUCs under corruptions, by severity and name.

    They are named `corruptions/DATASET/CORRUPTION/video_auc`, with `mean` for the mean over
    corruptions. Every curve begins with the clean images, severity 0. Empty for a run without
    corruptions.

    Args:
        without: datasets to leave out.
    """
    run.check(CORRUPTIONS)
    if not (run.folder / CORRUPTIONS).is_file():
        return {}
    columns = ("dataset", "corruption", "severity", "value")
    aucs = (
        read_results(run.folder / CORRUPTIONS)
        .filter(~pl.col("dataset").is_in([*without]), level="video", metric="auc")
        .select(columns)
    )
    corrupted = aucs.filter(pl.col("severity") > 0)
    pairs = corrupted.select("dataset", "corruption").unique(maintain_order=True)
    clean = aucs.filter(severity=0).drop("corruption").join(pairs, on="dataset").select(columns)
    curves = pl.concat([clean, corrupted])
    means = (
        curves.group_by("dataset", "severity", maintain_order=True)
        .agg(pl.col("value").mean())
        .with_columns(corruption=pl.lit("mean"))
        .select(columns)
    )
    values: dict[int, dict[str, float]] = {}
    rows = pl.concat([curves, means]).sort("severity", maintain_order=True).rows()
    for dataset, corruption, severity, value in rows:
        values.setdefault(severity, {})[f"corruptions/{dataset}/{corruption}/video_auc"] = value
    return values


def roc_tables(run: Run, datasets: Collection[str]) -> dict[str, pl.DataFrame]:
    """The ROC curves of datasets, with the columns level, false and true positive rate.

    Frames become videos by the rules of the run's protocol.
    """
    parts: dict[str, list[pl.DataFrame]] = {}
    for facts in run.record()["stamps"].values():
        if (dataset := facts["dataset"]) in datasets:
            name = f"predictions/{dataset}.parquet"
            run.check(name)
            frames = with_scores(cover(read_predictions(run.folder / name), policy(facts)))
            if facts["naming"] == "folder":
                frames = group_by_folder(frames)
            items = (
                frames
                if facts["level"] == "frame"
                else aggregate_videos(frames, facts["video_score"], facts.get("definitions", OURS))
            )
            level = pl.lit(facts["level"]).alias("level")
            parts.setdefault(dataset, []).append(roc_table(items).select(level, pl.all()))
    return {dataset: pl.concat(levels) for dataset, levels in parts.items()}


def roc_table(items: pl.DataFrame) -> pl.DataFrame:
    """The ROC curve of scored frames or videos.

    Args:
        items: columns score and label.
    """
    score = torch.from_numpy(items["score"].cast(pl.Float64).to_numpy(writable=True))
    label = torch.from_numpy(items["label"].cast(pl.Int64).to_numpy(writable=True))
    false_positive, true_positive = simplify_line(*roc_rates(score, label))
    return pl.DataFrame(
        {"false_positive_rate": false_positive, "true_positive_rate": true_positive}
    )
