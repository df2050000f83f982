"""What a prediction must know of a detector beside its weights.

They follow from the files of a run (`fmsd.inference.run_facts`), or were exported with a model as
JSON. Needs no torch.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from fmsd.data.extraction.recipe import Recipe
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.json_records import Count, Number, check_record
from fmsd.metrics.score_meaning import (
    RATES,
    TRIPLE,
    ScoreMeaning,
    ScoreMeaningRecord,
    VideoCounts,
    known_keys,
)
from fmsd.metrics.video import aggregation

LEVELS = ("frame", "video")
"""The levels whose scores mean something; a run has both or, without validation data, none."""

ERRORS = ("log_loss", "brier", "ece")
"""What is known of scores before and after a calibration."""

MAX_SIDE = 4096
"""Largest side in pixels of a crop, and of the images that a network takes."""

MAX_MARGIN = 100
"""Largest margin of a crop."""

Side = Annotated[Count, Field(ge=1, le=MAX_SIDE)]
"""A side in pixels."""


LARGEST_LOGIT = 100
"""Largest logit that a calibration maps from or to; a score in float64 has none beyond 37."""

LARGEST_SLOPE = 1e9
"""Largest slope and offset of a calibration."""


def known_video_score(name: str) -> str:
    """The name of an aggregation of the scores of a video's frames.

    Raises:
        InputError: there is none of that name.
    """
    aggregation(name)
    return name


VideoScore = Annotated[str, Field(max_length=12), AfterValidator(known_video_score)]
"""See `fmsd.metrics.video.aggregate_videos`."""


@dataclass(frozen=True)
class DetectorFacts:
    """What a prediction must know of a detector beside its weights.

    Args:
        name: of the run, for people: its folder, or USER/NAME@COMMIT, shortened, of one on the Hub.
        size: side in pixels of the images that its network takes.
        crops: how faces are cropped.
        crops_known: whether the run's training data say so; otherwise `crops` are the defaults.
        video_score: how the scores of frames are aggregated, see
            `fmsd.metrics.video.aggregate_videos`.
        validation: numbers of videos of the validation split, by dataset; images are among them.
        selection: the rule by which the run chose its weights, see
            `fmsd.engine.model_selection`.
        meanings: by level, `frame` and `video`; empty where the run has no validation predictions.
        weights: the type of its weights; thresholds and calibration were chosen with float32.
    """

    name: str
    size: int
    crops: CropSettings
    crops_known: bool
    video_score: str
    validation: Mapping[str, VideoCounts]
    selection: str
    meanings: Mapping[str, ScoreMeaning]
    weights: str = "float32"

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return vars(self) | {
            "crops": dict(vars(self.crops)),
            "validation": {name: list(counts) for name, counts in self.validation.items()},
            "meanings": {level: meaning.to_json() for level, meaning in self.meanings.items()},
        }


class CropsRecord(TypedDict):
    """`CropSettings` as JSON."""

    size: Side
    margin: Annotated[Number, Field(le=MAX_MARGIN)]
    align: bool
    format: str
    quality: Count
    min_face: Count


class FactsRecord(TypedDict):
    """`DetectorFacts` as JSON."""

    name: str
    size: Side
    crops: CropsRecord
    crops_known: bool
    video_score: VideoScore
    validation: dict[str, Annotated[list[Count], TRIPLE]]
    selection: str
    meanings: dict[str, ScoreMeaningRecord]


def read_crops(content: object, source: str | Path, remedy: str) -> CropSettings:
    """The settings of crops in a JSON object.

    Args:
        source, remedy: see `read_facts`.

    Raises:
        InputError: a setting is missing or out of range.
    """
    check_record(content, CropsRecord, source, remedy)
    values = known_keys(cast("Mapping[str, Any]", content), CropsRecord)
    try:
        Recipe(**values)
    except InputError as error:
        raise InputError(f"{source} is damaged: {error.message}", remedy) from error
    return CropSettings(**values)


def read_facts(content: object, source: str | Path, remedy: str) -> DetectorFacts:
    """The facts in a JSON object, as `DetectorFacts.to_json` writes them.

    Args:
        source: where they are from, for the message.
        remedy: what to do about facts that are damaged.

    Raises:
        InputError: they are damaged.
    """
    check_record(content, FactsRecord, source, remedy)
    values: Any = known_keys(cast("Mapping[str, Any]", content), FactsRecord)
    for level, meaning in values["meanings"].items():
        for holds, what in requirements(meaning):
            if not holds:
                raise InputError(f"{source} is damaged: 'meanings.{level}' {what}", remedy)
    if set(values["meanings"]) not in (set(), set(LEVELS)):
        raise InputError(
            f"{source} is damaged: 'meanings' has not both levels, {' and '.join(LEVELS)}", remedy
        )
    return DetectorFacts(
        **values
        | {
            "crops": read_crops(values["crops"], source, remedy),
            "validation": {
                name: VideoCounts(*counts) for name, counts in values["validation"].items()
            },
            "meanings": {
                level: ScoreMeaning.from_json(meaning)
                for level, meaning in values["meanings"].items()
            },
        }
    )


def requirements(meaning: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """What must hold of a `ScoreMeaningRecord` beyond its types, and what is wrong where it fails.

    Later conditions may rely on earlier ones.
    """
    fitted, points = meaning["calibration"], meaning["points"]
    yield set(points) == {str(rate) for rate in RATES.values()}, "has other thresholds than fmsd's"
    for rate, point in points.items():
        false, reals = point["false_positives"], point["reals"]
        true, fakes = point["true_positives"], point["fakes"]
        yield 0 <= point["threshold"] <= 1.001, f"has a threshold at {rate} that is no probability"
        yield reals > 0 and fakes > 0, f"has no real or no fake items at the rate {rate}"
        yield false <= reals and true <= fakes, f"counts more errors at {rate} than items"
    real, fake, images = meaning["videos"]
    yield real > 0 and fake > 0, "has no real or no fake videos"
    yield images <= real + fake, "counts more images than videos and images together"
    for scores in meaning["quantiles"]:
        yield is_rising(scores), "has scores of the validation data that are not sorted"
        yield scores[0] >= 0 and scores[-1] <= 1, "has validation scores that are no probabilities"
    if fitted is None:
        return
    for when in ("before", "after"):
        yield set(ERRORS) <= set(meaning[when]), f"lacks an error {when} the calibration"
    line = (fitted["slope"], fitted["offset"])
    yield max(map(abs, line)) <= LARGEST_SLOPE, "has a calibration that is too steep"
    if fitted["kind"] == "isotonic":
        places, heights = fitted["places"], fitted["heights"]
        yield 0 < len(places) == len(heights), "has a calibration without as many heights as places"
        yield len(set(places)) == len(places), "has a calibration with a place twice"
        for logits in (places, heights):
            yield is_rising(logits), "has a calibration that is not sorted"
            yield max(map(abs, logits)) <= LARGEST_LOGIT, "has a calibration out of range"


def is_rising(values: Sequence[float]) -> bool:
    """Whether no value is below the one before it."""
    return all(low <= high for low, high in itertools.pairwise(values))
