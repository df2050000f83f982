"""Which single property of its files tells a video's label, so that a detector need not look at the face."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from fmsd.metrics.ranking import auc

NUMERIC: Mapping[str, tuple[str, str]] = {
    "width": ("are narrower", "are wider"),
    "height": ("are lower", "are taller"),
    "aspect": ("are narrower for their height", "are wider for their height"),
    "file size": ("have smaller files", "have larger files"),
    "bits per pixel": ("take fewer bits per pixel", "take more bits per pixel"),
    "JPEG quality": ("have a lower JPEG quality", "have a higher JPEG quality"),
    "brightness": ("are darker", "are brighter"),
    "saturation": ("are paler", "are more colourful"),
    "sharpness": ("are blurrier", "are sharper"),
    "frames": ("have fewer frames", "have more frames"),
}
"""Properties that are numbers, and how low and high ones are said of fakes."""

CATEGORICAL = ("file type", "chroma subsampling")
"""Properties that are words."""

WEAK, STRONG, DEVIATIONS = 0.6, 0.8, 3.0
"""The AUC from which a property is told, that from which it could explain a detector's result, and by how many standard deviations of chance it must
differ from 0.5."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A property that tells real from fake.

    Args:
        auc: of the property alone, in the direction that it has; from 0.6 on.
        says: the direction in words.
        videos: how many have the property.
    """

    dataset: str
    split: str
    property: str
    auc: float
    says: str
    videos: int


def find_shortcuts(videos: pl.DataFrame) -> list[Shortcut]:
    """The properties that tell the label by themselves, by dataset and split, the strongest first.

    A property that rises and falls with the label is not found, only one that is higher or lower. A
    word is as high as the share of fakes among the videos that have it, see `categorical_auc`.

    Args:
        videos: a row per video with dataset, split, label (1 = fake) and any of the properties.
    """
    found = []
    for (dataset, split), part in videos.group_by("dataset", "split", maintain_order=True):
        for name in (name for name in (*NUMERIC, *CATEGORICAL) if name in part.columns):
            held = part.select("label", value=name).drop_nulls()
            fakes = int(held["label"].sum())
            reals = held.height - fakes
            if not fakes or not reals:
                continue
            if name in CATEGORICAL:
                area = strength = categorical_auc(held)
            else:
                ranks = held.select(
                    (pl.col("value").rank() / held.height).cast(pl.Float64)
                ).to_series()
                area = auc(ranks.to_torch(), held["label"].cast(pl.Int64).to_torch())
                strength = max(area, 1 - area)
            chance = DEVIATIONS * ((fakes + reals + 1) / (12 * fakes * reals)) ** 0.5
            if strength >= WEAK and strength - 0.5 > chance:
                says = (
                    f"are more often {_typical(held)}"
                    if name in CATEGORICAL
                    else NUMERIC[name][area > 0.5]
                )
                found.append(
                    Shortcut(str(dataset), str(split), name, strength, f"fakes {says}", held.height)
                )
    return sorted(found, key=lambda shortcut: -shortcut.auc)


def categorical_auc(held: pl.DataFrame) -> float:
    """How often the word of a fake is more typical of fakes than that of a real is, over all pairs; below 0.5 it tells nothing.

    A word's share of fakes is taken from all videos but the two of the pair, as one that counts
    itself would be told even by words at random; without another video of the word it is that of
    all videos. Two videos of the same word are a tie.

    Args:
        held: a row per video with label and value, of both labels.
    """
    words = held.group_by("value").agg(pl.len(), fakes=pl.col("label").cast(pl.Int64).sum())
    count, fakes = (
        words["len"].to_numpy().astype(np.float64),
        words["fakes"].to_numpy().astype(np.float64),
    )
    prior = (fakes.sum() - 1) / max(count.sum() - 2, 1)
    of_fake, of_real = (
        np.where(count > 1, rest / np.maximum(count - 1, 1), prior) for rest in (fakes - 1, fakes)
    )
    wins = (1 + np.sign(of_fake[:, None] - of_real[None])) / 2
    np.fill_diagonal(wins, 0.5)
    return float(fakes @ wins @ (count - fakes) / (fakes.sum() * (count - fakes).sum()))


def _typical(held: pl.DataFrame) -> str:
    """The word that fakes have most more often than reals."""
    shares = held.group_by("value").agg(
        (
            pl.col("label") / held["label"].sum()
            - (1 - pl.col("label")) / (1 - held["label"]).sum()
        ).sum()
    )
    return str(shares.sort("label", "value")["value"][-1])
