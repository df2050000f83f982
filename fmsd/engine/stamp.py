"""The protocol stamp: everything that two numbers must have in common to stand in one column, by one short hash."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import cv2
import PIL
import polars as pl

from fmsd.data import description, packaged
from fmsd.engine.datamodule import DataModule
from fmsd.metrics.table import LEVELS

Facts = dict[str, Any]
"""What a number rests on, as JSON takes it."""

DECODERS = {
    "simplejpeg": version("simplejpeg"),
    "opencv": cv2.__version__,
    "pillow": PIL.__version__,
}
"""The packages that decode and resize images; releases of one major version should agree."""


def origin(data: DataModule, selection: str) -> Facts:
    """What is to be known of a training to compare its tests: how weights were chosen, the augmentation, and the digests of the training data."""
    train = {
        name: summary["digest"]
        for name, summary in description.describe_datasets(data.training).items()
    }
    found = {
        "selection": selection,
        "augment": data.augment,
        "train": train,
        "left_out": data.left_out,
    }
    return (
        found
        if data.train_frames == data.frames
        else found
        | {"train_frames": "all" if data.train_frames is None else str(data.train_frames)}
    )


def stamps(data: DataModule, trained: Mapping[str, Any]) -> dict[str, Facts]:
    """The facts of every test dataset at every level, by their stamp.

    Args:
        trained: the `origin` of what is tested.
    """
    decoder = ", ".join(f"{name} {release.partition('.')[0]}" for name, release in DECODERS.items())
    found = {}
    for name, manifest in data.tests.items():
        shared = {
            "dataset": name,
            "manifest": manifest.digest(),
            "protocol": data.protocol,
            "sampling": data.sampling,
            "naming": data.naming,
            "frames": data.frames,
            "videos": data.videos,
            "compression": manifest.table["compression"].unique().sort().to_list(),
            "forgeries": data.forgeries,
            "crops": packaged.crop_settings(manifest.root),
            "size": data.size,
            "decoder": decoder,
            "video_score": data.video_score,
            **trained,
        }
        for level in LEVELS:
            facts = {"level": level} | shared
            found[hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]] = (
                facts
            )
    return found


def stamped(table: pl.DataFrame, stamps: Mapping[str, Facts]) -> pl.DataFrame:
    """Results with the stamp of each row's dataset and level."""
    keys = ["dataset", "level"]
    known = pl.DataFrame(
        [(facts["dataset"], facts["level"], stamp) for stamp, facts in stamps.items()],
        schema=dict.fromkeys([*keys, "stamp"], pl.String),
        orient="row",
    )
    return table.join(known, on=keys, how="left", maintain_order="left")
