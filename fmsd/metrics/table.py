"""From predictions to result tables. Every number is recomputed from the predictions alone.

Predictions are a table with the manifest's columns and `logit`, a row per frame. Results are tidy: one number a row.
"""

from collections.abc import Iterator, Sequence

import polars as pl
import torch

from fmsd.metrics.ranking import METRICS, Labels, Scores, auc
from fmsd.metrics.video import by_folder, by_video
from fmsd.types import InputError

COLUMNS = ("dataset", "level", "metric", "value", "n_frames", "n_videos", "selection", "protocol")
DOMAIN_COLUMNS = ("dataset", "domain", "level", "value", "n_frames", "n_videos")
LEVELS = ("frame", "video")


def scored(predictions: pl.DataFrame) -> pl.DataFrame:
    """Adds `score`, the probability of fake in float64, where confident frames do not tie at 1."""
    return predictions.with_columns(score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp()))


def results(predictions: pl.DataFrame, selection: str, protocol: str = "fmsd", naming: str = "id") -> pl.DataFrame:
    """Every metric of every dataset at frame and video level.

    Args:
        selection: the rule that chose the weights, written into every row.
        protocol: the rules by which frames were chosen and grouped, written into every row.
        naming: what is one video: equal `id`, or equal last name of it (`folder`).

    Raises:
        InputError: a dataset with one class only.
    """
    rows = []
    for dataset, frames in _datasets(predictions):
        ranked = _ranked(by_folder(frames) if naming == "folder" else frames)
        for level in LEVELS:
            for metric, function in METRICS.items():
                rows.append((dataset, level, metric, function(*ranked[level]), *_sizes(ranked), selection, protocol))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def by_domain(predictions: pl.DataFrame) -> pl.DataFrame:
    """The AUC of each forgery domain's fakes against all real frames of their dataset, at frame and video level.

    `n_frames` and `n_videos` count what was ranked, the real ones included.

    Raises:
        InputError: a dataset with one class only.
    """
    rows = []
    for dataset, frames in _datasets(predictions):
        reals, fakes = frames.filter(label=0), frames.filter(label=1)
        for (domain,), own in fakes.group_by("domain", maintain_order=True):
            ranked = _ranked(pl.concat([reals, own]))
            rows += [(dataset, domain, level, auc(*ranked[level]), *_sizes(ranked)) for level in LEVELS]
    return pl.DataFrame(rows, schema=DOMAIN_COLUMNS, orient="row")


def wide(tidy: pl.DataFrame, metric: str = "auc") -> pl.DataFrame:
    """One metric with datasets as columns: a row for frames, a row for videos."""
    return tidy.filter(metric=metric).pivot("dataset", index="level", values="value", maintain_order=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers stand right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _datasets(predictions: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The scored frames of each dataset; refuses one whose frames cannot be ranked."""
    for (dataset,), frames in scored(predictions).group_by("dataset", maintain_order=True):
        if frames["label"].n_unique() != 2:
            only = "fake" if frames["label"][0] else "real"
            raise InputError(f"The test split of {dataset} has only {only} frames, so no AUC exists; test on real and fake frames together.")
        yield str(dataset), frames


def _ranked(frames: pl.DataFrame) -> dict[str, tuple[Scores, Labels]]:
    """Scores and labels at each level."""
    return {
        level: (
            torch.from_numpy(table["score"].to_numpy(writable=True)),
            torch.from_numpy(table["label"].cast(pl.Int64).to_numpy(writable=True)),
        )
        for level, table in zip(LEVELS, (frames, by_video(frames)), strict=True)
    }


def _sizes(ranked: dict[str, tuple[Scores, Labels]]) -> list[int]:
    """Numbers of frames and of videos."""
    return [len(ranked[level][0]) for level in LEVELS]
