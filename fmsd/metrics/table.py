"""From predictions to result tables. Every number is recomputed from the predictions alone.

Predictions are a table with the manifest's columns and `logit`, a row per frame. Results are tidy: one number a row.
"""

from collections.abc import Sequence

import polars as pl
import torch

from fmsd.metrics.ranking import METRICS
from fmsd.metrics.video import by_video
from fmsd.types import InputError

COLUMNS = ("dataset", "level", "metric", "value", "n_frames", "n_videos", "selection")
LEVELS = ("frame", "video")


def scored(predictions: pl.DataFrame) -> pl.DataFrame:
    """Adds `score`, the probability of fake in float64, where confident frames do not tie at 1."""
    return predictions.with_columns(score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp()))


def results(predictions: pl.DataFrame, selection: str) -> pl.DataFrame:
    """Every metric of every dataset at frame and video level.

    Args:
        selection: the rule that chose the weights, written into every row.

    Raises:
        InputError: a dataset with one class only.
    """
    rows = []
    for (dataset,), frames in scored(predictions).group_by("dataset", maintain_order=True):
        classes = frames["label"].n_unique()
        if classes != 2:
            only = "fake" if frames["label"][0] else "real"
            raise InputError(f"The test split of {dataset} has only {only} frames, so no AUC exists; test on real and fake frames together.")
        tables = {"frame": frames, "video": by_video(frames)}
        for level in LEVELS:
            score = torch.from_numpy(tables[level]["score"].to_numpy(writable=True))
            label = torch.from_numpy(tables[level]["label"].cast(pl.Int64).to_numpy(writable=True))
            for metric, function in METRICS.items():
                rows.append((dataset, level, metric, function(score, label), frames.height, tables["video"].height, selection))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def wide(tidy: pl.DataFrame, metric: str = "auc") -> pl.DataFrame:
    """One metric with datasets as columns: a row for frames, a row for videos."""
    return tidy.filter(metric=metric).pivot("dataset", index="level", values="value", maintain_order=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers stand right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
