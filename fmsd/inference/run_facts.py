"""The facts of a run that a prediction needs, from the files in its folder."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from fmsd.data.extraction.recipe import Recipe
from fmsd.errors import InputError
from fmsd.hub_addresses import title_name
from fmsd.inference.crop_scoring import CROPS_REMEDY, CropSettings
from fmsd.inference.facts import DetectorFacts, known_video_score, read_crops
from fmsd.inference.familiarity import FeatureBank, fit_bank
from fmsd.metrics.decision import count_videos, score_meanings
from fmsd.metrics.score_meaning import VideoCounts
from fmsd.runs.configuration import read_configuration
from fmsd.runs.folder import VALIDATION, Run
from fmsd.runs.integrity import DETECTOR_FILES
from fmsd.runs.predictions import read_predictions
from fmsd.runs.validation_features import FEATURES, read_features

log = logging.getLogger(__name__)

WITHOUT = {
    VALIDATION: "scores are neither calibrated nor compared with a threshold",
    FEATURES: "it is not known whether a face is unusual",
}
"""Files of a run that a prediction can do without, and what it then lacks."""


def run_facts(run: Run, warn: bool = True) -> DetectorFacts:
    """The facts of a run.

    Args:
        warn: log a warning where its training data do not say how faces were cropped.

    Raises:
        InputError: a file of the run is damaged, or not what its record says.
    """
    run.check(*DETECTOR_FILES, optional=WITHOUT)
    settings = read_configuration(run.folder)
    data = settings.get("data") or {}
    video_score = known_video_score(data.get("video_score") or "mean")
    record = run.record(complete=True)
    validation, meanings = dict[str, VideoCounts](), {}
    path = run.folder / VALIDATION
    if path.is_file():
        predictions = read_predictions(path)
        validation = count_by_dataset(predictions)
        meanings = score_meanings(predictions, video_score)
    crops = run_crops(record, warn)
    return DetectorFacts(
        name=title_name(run.folder),
        size=data.get("size") or settings["backbone"]["size"],
        crops=crops or CropSettings(),
        crops_known=crops is not None,
        video_score=video_score,
        validation=validation,
        selection=record["selection"],
        meanings=meanings,
    )


def feature_bank(run: Run) -> FeatureBank | None:
    """The features of a run's validation frames; None where it has none, or of one video only.

    Raises:
        InputError: their file is damaged.
    """
    path = run.folder / FEATURES
    if not path.is_file():
        return None
    features = read_features(path)
    return fit_bank(features.vectors, features.video)


def count_by_dataset(predictions: pl.DataFrame) -> dict[str, VideoCounts]:
    """The numbers of videos of each dataset."""
    datasets = predictions.sort("dataset").group_by("dataset", maintain_order=True)
    return {str(dataset): count_videos(own) for (dataset,), own in datasets}


def run_crops(record: Mapping[str, Any], warn: bool = True) -> CropSettings | None:
    """How the faces of a run's training data were cropped; None if unknown.

    Where the datasets differ in the smallest face alone, the smallest of all counts.

    Args:
        record: the content of its `run.json`.
        warn: log a warning if it is unknown.
    """
    if "imported" in record and (crops := recorded_crops(record["imported"])) is not None:
        return crops
    trained = record["manifests"].get("train") or {}
    found = {name: recorded_crops(dataset) for name, dataset in trained.items()}
    known = {name: crops for name, crops in found.items() if crops is not None}
    smallest = min((crops.min_face for crops in known.values()), default=0)
    known = {name: replace(crops, min_face=smallest) for name, crops in known.items()}
    what = None
    if silent := [name for name in found if name not in known]:
        what = f"how the faces of {', '.join(silent)} were cropped"
    elif len(set(known.values())) > 1:
        made = "; ".join(f"{name}: {describe(crops)}" for name, crops in known.items())
        what = f"one way in which faces were cropped, but several ({made})"
    elif not known:
        what = "how the faces of its training data were cropped"
    if what is None:
        return next(iter(known.values()))
    if not warn:
        return None
    log.warning(
        "The run does not record %s: faces are cropped as fmsd extract does by default (%s). "
        "Scores of faces that are cropped otherwise mean little; %s.",
        what,
        describe(CropSettings()),
        CROPS_REMEDY,
    )
    return None


def describe(crops: CropSettings) -> str:
    """The settings of crops as `fmsd extract` takes them."""
    shown = ["size", "margin", "align", "format", *(["quality"] if crops.format == "jpg" else [])]
    return ", ".join(f"{name}={str(getattr(crops, name)).lower()}" for name in shown)


def recorded_crops(dataset: object) -> CropSettings | None:
    """The settings of the crops of one dataset in a record; None if it says nothing valid."""
    crops = dataset.get("crops") if isinstance(dataset, dict) else None
    if not isinstance(crops, dict):
        return None
    # a setting that is not recorded had its default
    recorded = {name: crops.get(name, value) for name, value in asdict(Recipe()).items()}
    if recorded["keep_small"] is not False:
        recorded["min_face"] = 0
    try:
        return read_crops(recorded, "run.json", "")
    except InputError:
        return None
