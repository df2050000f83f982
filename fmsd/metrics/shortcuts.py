"""Shortcuts: single properties of files that predict the label without a look at the face."""

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
"""Numeric properties, each with the words for fakes with lower and with higher values."""

CATEGORICAL = ("file type", "chroma subsampling")
"""Categorical properties."""

WEAK, STRONG, DEVIATIONS = 0.6, 0.8, 3.0
"""Limits of a report: a property is reported from an AUC of WEAK, and from STRONG it could explain
a detector's result; it must differ from 0.5 by more than DEVIATIONS standard deviations of chance.
"""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A property that separates real from fake videos.

    Args:
        auc: AUC of the property alone, at least WEAK, whatever its direction.
        direction: how fakes differ, as a clause.
        videos: number of videos that have the property.
    """

    dataset: str
    split: str
    property: str
    auc: float
    direction: str
    videos: int


def find_shortcuts(videos: pl.DataFrame) -> list[Shortcut]:
    """The properties that predict the label alone, by dataset and split, the strongest first.

    Only monotone relations are found, in which fakes have higher or lower values. A categorical
    value is scored by the share of fakes among the videos that have it, see `categorical_auc`.

    Args:
        videos: a row per video with dataset, split, label (1 = fake) and any of the properties.
    """
    found = []
    for (dataset, split), part in videos.group_by("dataset", "split", maintain_order=True):
        for name in (name for name in (*NUMERIC, *CATEGORICAL) if name in part.columns):
            rows = part.select("label", value=name).drop_nulls()
            fakes = int(rows["label"].sum())
            real_videos = rows.height - fakes
            if not fakes or not real_videos:
                continue
            if name in CATEGORICAL:
                strength, direction = categorical_auc(rows), f"are more often {_typical(rows)}"
            else:
                ranks = (pl.col("value").rank() / rows.height).cast(pl.Float64)
                score = rows.select(ranks).to_series().to_torch()
                area = auc(score, rows["label"].cast(pl.Int64).to_torch())
                strength, direction = max(area, 1 - area), NUMERIC[name][area > 0.5]
            chance = DEVIATIONS * ((fakes + real_videos + 1) / (12 * fakes * real_videos)) ** 0.5
            if strength >= WEAK and strength - 0.5 > chance:
                found.append(
                    Shortcut(
                        str(dataset), str(split), name, strength, f"fakes {direction}", rows.height
                    )
                )
    return sorted(found, key=lambda shortcut: -shortcut.auc)


def categorical_auc(rows: pl.DataFrame) -> float:
    """Leave-one-out AUC of a categorical property, scored by each value's share of fakes.

    For each pair of a fake and a real video the shares are those among all other videos, as shares
    that count the pair itself would separate even random values. A value that no other video has
    gets the share of all others. Two videos of the same value are a tie.

    Args:
        rows: a row per video with label and value, of both labels.
    """
    values = rows.group_by("value").agg(pl.len(), fakes=pl.col("label").cast(pl.Int64).sum())
    count = values["len"].to_numpy().astype(np.float64)
    fakes = values["fakes"].to_numpy().astype(np.float64)
    prior = (fakes.sum() - 1) / max(count.sum() - 2, 1)
    of_fake, of_real = (
        np.where(count > 1, rest / np.maximum(count - 1, 1), prior) for rest in (fakes - 1, fakes)
    )
    wins = (1 + np.sign(of_fake[:, None] - of_real[None])) / 2
    np.fill_diagonal(wins, 0.5)
    return float(fakes @ wins @ (count - fakes) / (fakes.sum() * (count - fakes).sum()))


def _typical(rows: pl.DataFrame) -> str:
    """The value whose share among fakes exceeds that among real videos most."""
    shares = rows.group_by("value").agg(
        (
            pl.col("label") / rows["label"].sum()
            - (1 - pl.col("label")) / (1 - rows["label"]).sum()
        ).sum()
    )
    return str(shares.sort("label", "value")["value"][-1])
