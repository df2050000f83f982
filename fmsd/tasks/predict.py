"""Prediction: verdicts on images and videos of one's own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fmsd.atomic import atomic
from fmsd.console import print_place, print_table, progress
from fmsd.inference.loading import LoadedDetector
from fmsd.inference.media import Sampling, expected_frames
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.prediction_files import PAGE, check_out, file_record, write_predictions
from fmsd.inference.prediction_page import render_page
from fmsd.inference.sentences import (
    NO_PROOF,
    UNUSUAL,
    calibration_sentences,
    levels_of,
    percent,
    threshold_sentences,
    visible,
    who_decides,
)
from fmsd.inference.verdict import DEFAULT_AT, Verdict

log = logging.getLogger(__name__)

MAX_SHOWN = 200
"""Largest number of files in the table on the terminal."""

PICTURED = 50
"""Files whose faces are kept for the page, those with the highest scores: crops are large."""

HEADER = ("file", "verdict", "P(fake)", "score", "decided by", "reals below", "fakes below", "new")
"""The columns of the table: `new` is yes where a face lies outside of the validation data."""


def predict(
    detector: LoadedDetector,
    files: Sequence[Path],
    sampling: Sampling | None = None,
    at: str = DEFAULT_AT,
    out: Path | None = None,
) -> int:
    """Scores files, prints what each is called, and writes tables and a page.

    Args:
        sampling: which frames of a video are scored; None for the default.
        at: the threshold, see `fmsd.inference.verdict.judge`.
        out: folder of the files; None to only print.

    Returns:
        The number of files that could not be read.

    Raises:
        InputError: the face detector cannot be built, or files of others lie in `out`.
    """
    if out is not None:
        check_out(out)
    predictions = predict_files(detector, files, sampling or Sampling(), pictured=out is not None)
    verdicts = [detector.verdict(prediction, at) for prediction in predictions]
    print_verdicts(detector, predictions, verdicts, at)
    if out is not None:
        write_predictions(out, predictions, verdicts, detector.facts, at)
        page = render_page(predictions, verdicts, detector.facts, detector.heat)
        with atomic(out / PAGE) as partial:
            partial.write_text(page, encoding="utf-8")
        print_place(f"The predictions lie in {out}; open {out / PAGE}", out)
    return sum(prediction.status == "unreadable" for prediction in predictions)


def predict_files(
    detector: LoadedDetector, files: Sequence[Path], sampling: Sampling, pictured: bool
) -> list[FilePrediction]:
    """The predictions of files, under a progress bar of frames.

    Args:
        pictured: keep the crops of the `PICTURED` files with the highest scores.
    """
    predictor = detector.predictor(sampling)
    expected = [expected_frames(file, sampling) for file in files]
    predictions: list[FilePrediction] = []
    with progress("Predicting", sum(expected), "frames") as advance:
        for number, (file, most) in enumerate(zip(files, expected, strict=True), 1):
            note = f"{visible(file.name)[:40]}, {number} of {len(files)}"
            prediction = predictor.predict(file, on_frame=bounded(advance, most, note))
            predictions.append(prediction)
            if not pictured:
                predictions[-1] = without_crops(prediction)
            elif len(predictions) > PICTURED:
                drop_lowest(predictions)
    return predictions


def bounded(advance: Callable[..., None], most: int, note: str) -> Callable[[float], None]:
    """A function of a frame's seconds that advances a bar, in all by at most `most` frames."""
    left = most

    def step(_: float) -> None:
        nonlocal left
        advance(min(1, left), note=note)
        left -= min(1, left)

    return step


def drop_lowest(predictions: list[FilePrediction]) -> None:
    """Drops the crops of the file with the lowest score of those that have some, in place."""
    scored = [
        (person.score, place)
        for place, prediction in enumerate(predictions)
        if prediction.suspicious and (person := prediction.decides) is not None
    ]
    if len(scored) > PICTURED:
        place = min(scored)[1]
        predictions[place] = without_crops(predictions[place])


def without_crops(prediction: FilePrediction) -> FilePrediction:
    """A prediction without the pixels of its faces."""
    return replace(prediction, suspicious=())


def print_verdicts(
    detector: LoadedDetector,
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    at: str,
) -> None:
    """Prints a row for each file, why files could not be read, and what the threshold is."""
    facts, pairs = detector.facts, list(zip(predictions, verdicts, strict=True))
    levels = levels_of(predictions)
    sentences = [*threshold_sentences(facts, levels, at), *calibration_sentences(facts, levels)]
    if any(verdict is not None and verdict.unusual for verdict in verdicts):
        sentences.append(UNUSUAL)
    sentences.append(NO_PROOF)
    if len(pairs) > MAX_SHOWN:
        sentences.insert(0, f"{MAX_SHOWN} of {len(pairs)} files are shown; out=FOLDER has all.")
    print_table(
        f"{len(pairs)} files, scored by {visible(facts.name)}",
        HEADER,
        [row(prediction, verdict) for prediction, verdict in pairs[:MAX_SHOWN]],
        "\n".join(sentences),
        text_columns=("verdict", "decided by"),
        name="predictions",
        records=[file_record(prediction, verdict) for prediction, verdict in pairs],
    )
    failed = [prediction for prediction in predictions if prediction.status == "unreadable"]
    print_table(
        f"{len(failed)} files could not be read",
        ["file", "why"],
        [[visible(each.path), visible(each.message)] for each in failed[:MAX_SHOWN]],
        text_columns=("why",),
        name="failures",
        records=[{"path": each.path, "why": each.message} for each in failed],
    )


def row(prediction: FilePrediction, verdict: Verdict | None) -> list[str]:
    """The cells of a file's row."""
    if verdict is None:
        return [visible(prediction.path), prediction.status, *[""] * (len(HEADER) - 2)]
    ranks = (verdict.percentile_real, verdict.percentile_fake)
    unusual = {True: "yes", False: "no", None: "?"}[verdict.unusual]
    return [
        visible(prediction.path),
        verdict.called or "no threshold",
        "" if verdict.probability is None else percent(verdict.probability),
        f"{verdict.score:.4f}",
        who_decides(prediction),
        *("" if rank is None else percent(rank / 100) for rank in ranks),
        unusual,
    ]
