"""What `run.json` holds, as far as any verb reads it."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from fmsd.json_records import Count, Digest, Number, Seed
from fmsd.metrics.score_scale import Higher, Scale


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a control character or a line break")
    return text


Line = Annotated[str, AfterValidator(_printable)]
"""A text that can be shown on a terminal."""


class Origin(TypedDict):
    """The facts of a training that enter the protocol stamp of every later test."""

    selection: str
    augment: str
    train: dict[str, str]
    left_out: str | None


class Frames(TypedDict):
    """A dataset."""

    digest: str


class TestedFrames(TypedDict):
    """The datasets of a run."""

    test: dict[str, Frames]


class ChangedFiles(TypedDict):
    """Files of a test dataset that are not those of the run's first test."""

    since: str
    changed: Count
    frames: Count
    first: str


class Imported(TypedDict):
    """The published file that a run was imported from."""

    format: str
    detector: str
    name: NotRequired[str | None]
    file: str
    sha256: str
    crops: dict[str, Any]


class External(TypedDict):
    """The detector of other code, or the file of scores, that a run holds the scores of.

    Args:
        kind: `detector` or `scores`.
        detector, file: the name of the one or of the other, without a path of the machine.
        sha256: of the file of scores or of the detector's module; None where it is unknown.
        scale: `probability`, `logit` or `score`, see `fmsd.metrics.score_scale`.
        higher: what a higher score means: `fake` or `real`.
        levels: the levels of its results.
    """

    kind: Literal["detector", "scores"]
    detector: NotRequired[Line]
    file: NotRequired[Line]
    sha256: Digest | None
    scale: Scale
    higher: Higher
    levels: Annotated[list[Literal["frame", "video"]], Field(min_length=1)]


class NamedExpert(TypedDict):
    """An expert of a merge: its name in reports, and the digest of its weights."""

    name: str
    sha256: str


class RunRecord(TypedDict, total=False):
    """The kinds of all keys; which ones there are depends on the verb and version that wrote it."""

    command: list[str]
    time: str
    versions: dict[str, str | None]
    revision: str | None
    machine: str | None
    overrides: list[str]
    choices: dict[str, Any]
    seed: Seed | None
    selection: str
    monitor: str | None
    monitored: float | None
    thresholds: dict[str, Number] | None
    origin: dict[str, Any]
    stamps: dict[str, dict[str, Any]]
    epoch: Count | None
    steps: Count
    finished: bool
    merged: list[str]
    experts: list[NamedExpert]
    label: str | None
    imported: Imported
    external: External
    run: str
    trainable: Count
    parameters: Count
    device: str | None
    accelerator: str | None
    peak_memory: Count | None
    processes: Count | None
    seconds: Number | None
    manifests: dict[str, dict[str, Any]]
    suite: str | None
    skipped: list[str]
    overlap: dict[str, Count | None]
    pixels: dict[str, ChangedFiles]
    weights: str
    files: dict[str, str] | None


class CompleteRecord(TypedDict):
    """The keys of `RunRecord` that a run must have to be evaluated, folded, merged or explained."""

    seed: Seed
    selection: str
    origin: Origin
    epoch: Count | None
    trainable: Count
    parameters: Count
    seconds: Number
    manifests: TestedFrames
