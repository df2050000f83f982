"""What a prediction must know of a detector beside its weights.

They follow from the files of a run (`fmsd.inference.run_facts`), or were exported with a model as
JSON. Needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from fmsd.data.extraction.recipe import Recipe
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.json_records import Count, Number, check_record
from fmsd.metrics.score_meaning import PAIR, ScoreMeaning, ScoreMeaningRecord

MAX_SIDE = 4096
"""Largest side in pixels of a crop, and of the images that a network takes."""

MAX_MARGIN = 100
"""Largest margin of a crop."""

Side = Annotated[Count, Field(ge=1, le=MAX_SIDE)]
"""A side in pixels."""


@dataclass(frozen=True)
class DetectorFacts:
    """What a prediction must know of a detector beside its weights.

    Args:
        name: of the run.
        size: side in pixels of the images that its network takes.
        crops: how faces are cropped.
        crops_known: whether the run's training data say so; otherwise `crops` are the defaults.
        video_score: how the scores of frames are aggregated, see
            `fmsd.metrics.video.aggregate_videos`.
        validation: number of real and of fake videos of the validation split, by dataset.
        selection: the rule by which the run chose its weights, see
            `fmsd.engine.model_selection`.
        meanings: by level, `frame` and `video`; empty where the run has no validation predictions.
    """

    name: str
    size: int
    crops: CropSettings
    crops_known: bool
    video_score: str
    validation: Mapping[str, tuple[int, int]]
    selection: str
    meanings: Mapping[str, ScoreMeaning]

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
    video_score: str
    validation: dict[str, Annotated[list[Count], PAIR]]
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
    values: Any = {key: content[key] for key in CropsRecord.__annotations__}  # type: ignore[index]
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
    values: Any = {key: content[key] for key in FactsRecord.__annotations__}  # type: ignore[index]
    return DetectorFacts(
        **values
        | {
            "crops": read_crops(values["crops"], source, remedy),
            "validation": {
                name: (real, fake) for name, (real, fake) in values["validation"].items()
            },
            "meanings": {
                level: ScoreMeaning.from_json(meaning)
                for level, meaning in values["meanings"].items()
            },
        }
    )
