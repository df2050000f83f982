"""What an exported model says of itself: the facts of its detector, as JSON. Needs no torch.

An ONNX file has the text in its metadata, and a .pt2 file as an extra file.
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from fmsd.errors import InputError, reason
from fmsd.inference.facts import DetectorFacts, read_facts
from fmsd.json_records import Number, check_record

KEY = "fmsd"
"""The name of the text in the metadata of a file."""

INPUT = "crops"
"""The name of the input: RGB bytes, batch x 3 x size x size."""

LOGIT, PROBABILITY, DISTANCE = "logit", "probability", "distance"
"""Names of the outputs, in this order; the last may be absent."""

Weights = Literal["float32", "int8"]

ONNX_SUFFIX, PT2_SUFFIX = ".onnx", ".pt2"
"""Suffixes of exported models."""

REMEDY = "export the run again with fmsd export"


class Metadata(NamedTuple):
    """What an exported model says of itself.

    Args:
        facts: of the detector.
        unusual_limit: the distance of features from which a face is unusual; None where the model
            gives no distance.
        weights: the type of its weights; thresholds and calibration were chosen with float32.
    """

    facts: DetectorFacts
    unusual_limit: float | None
    weights: Weights = "float32"

    def to_text(self) -> str:
        """The metadata as JSON: the facts, and the rest beside them."""
        rest = {"unusual_limit": self.unusual_limit, "weights": self.weights}
        content = self.facts.to_json() | rest
        return json.dumps(content, allow_nan=False)


class NetworkRecord(TypedDict):
    """What `Metadata` has beside the facts, as JSON."""

    unusual_limit: Number | None
    weights: Weights


def read_metadata(text: str | None, path: Path) -> Metadata:
    """The metadata in the text of a file.

    Args:
        text: None where the file has none.
        path: of the file, for the message.

    Raises:
        InputError: it has none, or it is damaged.
    """
    if text is None:
        raise InputError(
            f"{path} was not written by fmsd export: it lacks the facts of a run", REMEDY
        )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged: its facts are no JSON ({reason(error)})", REMEDY
        ) from error
    check_record(content, NetworkRecord, path, REMEDY)
    facts = read_facts(content, path, REMEDY)
    return Metadata(facts, content["unusual_limit"], content["weights"])
