"""Protocol stamps: a short hash of all facts that two results must share to be compared."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import cv2
import PIL
import polars as pl

from fmsd.data.content import pixels_digest
from fmsd.data.description import describe_datasets
from fmsd.data.overlap import Overlap
from fmsd.data.prepared_folder import crop_settings
from fmsd.engine.datamodule import DataModule
from fmsd.metrics.coverage import EXCLUDE, is_complete
from fmsd.metrics.definitions import OURS
from fmsd.metrics.table import LEVELS

Facts = dict[str, Any]
"""The facts that a result depends on, as JSON values."""

DECODERS = {
    "simplejpeg": version("simplejpeg"),
    "opencv": cv2.__version__,
    "pillow": PIL.__version__,
}
"""The decoders of stored images; releases of one major version are taken to agree."""


def training_facts(data: DataModule, rule: str) -> Facts:
    """The facts of a training that its results depend on.

    Args:
        rule: the rule that chooses the weights.
    """
    selection = data.selection
    described = describe_datasets(data.splits.both)
    train = {name: summary["digest"] for name, summary in described.items()}
    facts = {
        "selection": rule,
        "augment": data.augment,
        "train": train,
        "left_out": selection.left_out,
    }
    # Equal counts are not recorded: the stamps of all results so far would change.
    frames = selection.frames_to_train
    if frames != selection.frames:
        facts["train_frames"] = "all" if frames is None else str(frames)
    return facts


def protocol_stamps(
    data: DataModule,
    trained: Mapping[str, Any],
    overlap: Overlap,
    levels: Sequence[str] = LEVELS,
) -> dict[str, Facts]:
    """The facts of every test dataset at every level, by their stamp.

    Args:
        trained: the `training_facts` of the detector that is tested.
        overlap: a fact of the datasets that hold training frames alone, as the stamps of all
            results so far would change.
        levels: of the results.
    """
    selection = data.selection
    decoder = ", ".join(f"{name} {release.partition('.')[0]}" for name, release in DECODERS.items())
    stamps = {}
    for name, manifest in data.tests.items():
        shared = {
            "dataset": name,
            "manifest": manifest.digest(),
            "protocol": selection.protocol,
            "sampling": selection.sampling,
            "naming": selection.naming,
            "frames": selection.frames,
            "videos": selection.videos,
            "compression": manifest.table["compression"].unique().sort().to_list(),
            "forgeries": selection.forgeries,
            "crops": crop_settings(manifest.root),
            "size": data.size,
            "decoder": decoder,
            "video_score": selection.video_score,
            **trained,
        } | ({"overlap": overlap[name]} if overlap[name] else {})
        if selection.definitions != OURS:  # the stamps of all other results would change
            shared["definitions"] = selection.definitions
        for level in levels:
            facts = {"level": level} | shared
            stamps[_stamp(facts)] = facts
    return stamps


def _stamp(facts: Facts) -> str:
    """The stamp of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def with_coverage(
    stamps: Mapping[str, Facts], predictions: Mapping[str, pl.DataFrame], coverage: str | None
) -> dict[str, Facts]:
    """The facts of tests by their stamp, with the coverage where not every frame has a score.

    Args:
        stamps: see `protocol_stamps`.
        predictions: a row per expected frame, by dataset.
        coverage: see `fmsd.metrics.coverage.cover`.
    """
    partial = {name for name, frames in predictions.items() if not is_complete(frames)}
    policy = {"coverage": coverage or EXCLUDE}
    covered = [
        facts | policy if facts["dataset"] in partial else facts for facts in stamps.values()
    ]
    return {_stamp(facts): facts for facts in covered}


def with_stamps(table: pl.DataFrame, stamps: Mapping[str, Facts]) -> pl.DataFrame:
    """Results with the stamp of each row's dataset and level."""
    keys = ["dataset", "level"]
    known = pl.DataFrame(
        [(facts["dataset"], facts["level"], stamp) for stamp, facts in stamps.items()],
        schema=dict.fromkeys([*keys, "stamp"], pl.String),
        orient="row",
    )
    return table.join(known, on=keys, how="left", maintain_order="left")


def with_frames(
    table: pl.DataFrame, predictions: Mapping[str, pl.DataFrame], overlap: Overlap
) -> pl.DataFrame:
    """Results with what is known of each row's frames.

    Args:
        predictions: by dataset.
        overlap: the number of training frames in each dataset.

    Returns:
        The results with the columns `pixels`, see `fmsd.data.content.pixels_digest`, and `overlap`.
    """
    known = pl.DataFrame(
        [(name, pixels_digest(frames), overlap[name]) for name, frames in predictions.items()],
        schema={"dataset": pl.String, "pixels": pl.String, "overlap": pl.Int64},
        orient="row",
    )
    return table.join(known, on="dataset", how="left", maintain_order="left")
