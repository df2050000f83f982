"""The files of a prediction: tables of every file and every face, and a document of both.

Their schema is in docs/verbs/predict.md. Needs no torch.
"""

import contextlib
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import atomic, refused_write
from fmsd.errors import InputError
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.verdict import Verdict
from fmsd.ownership import check_replaceable
from fmsd.runs.folder import owning_run
from fmsd.tables import as_plain_text

FILES, TABLE, DOCUMENT = "files.csv", "predictions.csv", "predictions.json"
PAGE = "report.html"

WRITER = "fmsd predict"
"""The writer that the document names."""

FORMAT = 1
"""The version of the document: it grows by one where a key is renamed, removed or redefined."""

COLUMNS = pl.Schema(
    {
        "path": pl.String,
        "status": pl.String,
        "frame": pl.Int64,
        "seconds": pl.Float64,
        "person": pl.Int64,
        "left": pl.Float64,
        "top": pl.Float64,
        "width": pl.Float64,
        "height": pl.Float64,
        "score": pl.Float64,
        "distance": pl.Float64,
    }
)
"""The columns of the table of faces."""

FILE_COLUMNS = pl.Schema(
    {
        "path": pl.String,
        "status": pl.String,
        "called": pl.String,
        "probability": pl.Float64,
        "score": pl.Float64,
        "threshold": pl.Float64,
        "percentile_real": pl.Float64,
        "percentile_fake": pl.Float64,
        "unusual": pl.Boolean,
        "distance": pl.Float64,
        "kind": pl.String,
        "level": pl.String,
        "person": pl.Int64,
        "share": pl.Float64,
        "counted": pl.Int64,
        "false_positive_bound": pl.Float64,
        "sampled": pl.Int64,
        "damaged": pl.Int64,
        "reason": pl.String,
        "message": pl.String,
    }
)
"""The columns of the table of files: the keys of `file_record`."""


def check_out(out: Path) -> None:
    """Refuses a folder that cannot be written, or in which files of others would be replaced.

    It is not made yet where it does not exist.

    Raises:
        InputError: it is no folder, cannot be written, is part of a run, or holds such files of
            another writer.
    """
    remedy = "give another folder as out=FOLDER"
    nearest = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(nearest):  # noqa: PTH112  never raises
        raise InputError(f"out={out} cannot be a folder: {nearest} is none", remedy)
    attempt = nearest / f".{uuid.uuid4().hex}.partial"
    try:
        if error := refused_write(attempt):
            raise InputError(f"out={out} cannot be written ({os.strerror(error)})", remedy)
    finally:
        with contextlib.suppress(OSError):
            attempt.unlink(missing_ok=True)
    if (out / "run.json").exists() or owning_run(out / DOCUMENT):
        raise InputError(f"out={out} is the folder of a run", remedy)
    files = [out / name for name in (FILES, TABLE, DOCUMENT, PAGE)]
    check_replaceable(files, out / DOCUMENT, _is_ours, WRITER, remedy)


def _is_ours(path: Path) -> bool:
    return json.loads(path.read_text(encoding="utf-8")).get("written_by") == WRITER


def write_predictions(
    out: Path,
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    facts: DetectorFacts,
    at: str,
    note: str = "",
) -> None:
    """Writes the document and the tables, each atomically; the document marks the folder.

    Args:
        note: see `prediction_document`.
    """
    document = prediction_document(predictions, verdicts, facts, at, note)
    text = json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False)
    with atomic(out / DOCUMENT) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    tables = {FILES: file_table(predictions, verdicts), TABLE: face_table(predictions)}
    for name, table in tables.items():
        with atomic(out / name) as partial:
            partial.write_text(table.write_csv(), encoding="utf-8")


def prediction_document(
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    facts: DetectorFacts,
    at: str,
    note: str = "",
) -> dict[str, Any]:
    """What was found in some files, and what is known of the detector, for JSON.

    Args:
        note: that files are missing, because the command ended early; empty otherwise.
    """
    return finite(
        {
            "format": FORMAT,
            "written_by": WRITER,
            "at": at,
            "note": note,
            "detector": detector_record(facts),
            "files": [
                file_record(prediction, verdict) | {"persons": person_records(prediction, verdict)}
                for prediction, verdict in zip(predictions, verdicts, strict=True)
            ],
        }
    )


def detector_record(facts: DetectorFacts) -> dict[str, Any]:
    """The facts of a detector without the scores of its validation data."""
    content = facts.to_json()
    meanings = {
        level: {key: value for key, value in meaning.items() if key != "quantiles"}
        for level, meaning in content["meanings"].items()
    }
    return content | {"meanings": meanings}


def file_record(prediction: FilePrediction, verdict: Verdict | None) -> dict[str, Any]:
    """What was found in a file, by plain keys."""
    person = prediction.decides
    fields = ("called", "reason", "threshold", "probability", "score", "level")
    fields += ("percentile_real", "percentile_fake", "unusual", "counted", "false_positive_bound")
    return {
        "path": prediction.path,
        "status": prediction.status,
        "message": prediction.message,
        "kind": prediction.kind,
        **{name: None if verdict is None else getattr(verdict, name) for name in fields},
        "distance": prediction.distance,
        "person": None if person is None else person.person,
        "share": None if person is None else prediction.share,
        "sampled": prediction.sampled,
        "damaged": prediction.damaged,
    }


def person_records(prediction: FilePrediction, verdict: Verdict | None) -> list[dict[str, Any]]:
    """The score of each person of a file and what it means, by plain keys."""
    verdicts = verdict.persons if verdict else ()
    return [
        vars(person) | vars(own) for person, own in zip(prediction.persons, verdicts, strict=True)
    ]


def file_table(
    predictions: Sequence[FilePrediction], verdicts: Sequence[Verdict | None]
) -> pl.DataFrame:
    """A row per file, in the order that they were given; what is not known is empty."""
    records = [
        finite(file_record(prediction, verdict))
        for prediction, verdict in zip(predictions, verdicts, strict=True)
    ]
    table = pl.DataFrame(records, schema=FILE_COLUMNS, orient="row")
    texts = pl.col("path", "reason", "message")
    return table.with_columns(texts.map_elements(as_plain_text, pl.String))


def face_table(predictions: Sequence[FilePrediction]) -> pl.DataFrame:
    """A row per face; a file without faces has one row without values."""
    rows = []
    for prediction in predictions:
        about = (as_plain_text(prediction.path), prediction.status)
        rows += [
            (
                *about,
                frame.position,
                frame.seconds,
                frame.person,
                *frame.box,
                frame.score,
                None if math.isnan(frame.distance) else frame.distance,
            )
            for frame in prediction.frames
        ] or [(*about, *[None] * (len(COLUMNS) - 2))]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def finite(value: Any) -> Any:
    """A value with null in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
