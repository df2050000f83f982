"""Prediction: verdicts on images and videos of one's own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fmsd.atomic import atomic
from fmsd.console import print_place, print_table, progress, track
from fmsd.inference.file_section import shown_name, who_decides
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.media import Sampling, expected_frames
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.prediction_files import PAGE, check_out, file_record, write_predictions
from fmsd.inference.prediction_page import NO_PROOF, keep_most_suspicious
from fmsd.inference.rendering import count_pictured, draw_page
from fmsd.inference.sentences import (
    UNUSUAL,
    calibration_sentences,
    count_files,
    levels_of,
    percent,
    persons_sentences,
    share_sentences,
    threshold_sentences,
    weights_sentences,
)
from fmsd.inference.verdict import DEFAULT_AT, Verdict

MAX_SHOWN = 200
"""Largest number of files in the table on the terminal."""

HEADER = (
    "file", "verdict", "P(fake)", "score", "decided by", "share",
    "reals at or below", "fakes at or below", "unusual",
)  # fmt: skip
"""The columns of the table."""


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
        InputError: the face detector cannot be built, or `out` cannot be written or holds files of
            others.
    """
    if out is not None:
        check_out(out)
    ending: list[BaseException] = []
    found = predict_files(detector, files, sampling or Sampling())
    predictions = keep_most_suspicious(until_error(found, ending))
    if ending and not predictions:
        raise ending[0]
    verdicts = [detector.verdict(prediction, at) for prediction in predictions]
    note = f"{len(predictions)} of {count_files(len(files))} were scored." if ending else ""
    if out is not None:
        write_predictions(out, predictions, verdicts, detector.facts, at, note)
    print_verdicts(detector, predictions, verdicts, at, note)
    if out is not None:
        write_page(replace(detector, heat=None) if ending else detector, predictions, verdicts, out)
        print_place(f"The predictions lie in {out}; open {out / PAGE}", out)
    if ending:
        raise ending[0]
    return sum(prediction.status == "unreadable" for prediction in predictions)


def until_error(
    results: Iterator[FilePrediction], ending: list[BaseException]
) -> Iterator[FilePrediction]:
    """Yields results until an error or a signal ends them, which is appended to `ending`."""
    try:
        yield from results
    except GeneratorExit:
        raise
    except BaseException as error:  # whatever it is: what is scored must not be lost
        ending.append(error)


def write_page(
    detector: LoadedDetector,
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    out: Path,
) -> None:
    """Writes the page, under a progress bar of the files whose heat maps are drawn."""
    with (
        progress("Drawing", count_pictured(predictions), "files") as advance,
        atomic(out / PAGE) as partial,
    ):
        partial.write_text(draw_page(detector, predictions, verdicts, advance), encoding="utf-8")


def predict_files(
    detector: LoadedDetector, files: Sequence[Path], sampling: Sampling
) -> Iterator[FilePrediction]:
    """Yields the prediction of each file, under a progress bar of frames."""
    predictor = detector.predictor(sampling)
    headers = files if sampling.known else track(files, "Reading headers", len(files), "files")
    expected = [expected_frames(file, sampling) for file in headers]
    with progress("Predicting", sum(expected), "frames") as advance:
        steps: list[Callable[[float], None]] = []

        def begun() -> Iterator[Path]:
            for number, (file, most) in enumerate(zip(files, expected, strict=True), 1):
                note = f"{shown_name(file.name)[:40]}, {number} of {len(files)}"
                step, rest = bounded(advance, most, note)
                steps[:] = [step]
                yield file
                rest()

        def look(seconds: float) -> None:
            steps[0](seconds)

        yield from predictor.predict_each(begun(), look)


def bounded(
    advance: Callable[..., None], most: int, note: str
) -> tuple[Callable[[float], None], Callable[[], None]]:
    """Two functions that advance a bar by `most` frames in all: one for a frame, one for the rest.

    A video may have fewer frames than expected, and is decoded again where it is damaged.
    """
    left = most

    def step(_: float) -> None:
        nonlocal left
        if left:
            left -= 1
            advance(1, note=note)

    def rest() -> None:
        advance(left, note=note)

    return step, rest


def print_verdicts(
    detector: LoadedDetector,
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    at: str,
    note: str = "",
) -> None:
    """Prints a row for each file, why files could not be read, and what the threshold is.

    Args:
        note: a sentence above all others.
    """
    facts, pairs = detector.facts, list(zip(predictions, verdicts, strict=True))
    levels = levels_of(predictions)
    sentences = [NO_PROOF, *threshold_sentences(facts, levels, at)]
    sentences += calibration_sentences(facts, levels)
    sentences += [
        *weights_sentences(facts),
        *persons_sentences(verdicts),
        *share_sentences(predictions),
    ]
    if any(verdict is not None and verdict.unusual for verdict in verdicts):
        sentences.append(UNUSUAL)
    if len(pairs) > MAX_SHOWN:
        sentences.insert(0, f"{MAX_SHOWN} of {len(pairs)} files are shown; out=FOLDER has all.")
    if note:
        sentences.insert(0, note)
    print_table(
        f"{count_files(len(pairs))}, scored by {shown_name(facts.name)}",
        HEADER,
        [row(prediction, verdict) for prediction, verdict in pairs[:MAX_SHOWN]],
        "\n".join(sentences),
        text_columns=("verdict", "decided by"),
        name="predictions",
        records=[file_record(prediction, verdict) for prediction, verdict in pairs],
    )
    failed = [prediction for prediction in predictions if prediction.status == "unreadable"]
    print_table(
        f"{count_files(len(failed))} could not be read",
        ["file", "why"],
        [[shown_name(each.path), shown_name(each.message)] for each in failed[:MAX_SHOWN]],
        text_columns=("why",),
        name="failures",
        records=[{"path": each.path, "why": each.message} for each in failed],
    )


def row(prediction: FilePrediction, verdict: Verdict | None) -> list[str]:
    """The cells of a file's row."""
    if verdict is None:
        return [shown_name(prediction.path), prediction.status, *[""] * (len(HEADER) - 2)]
    ranks = (verdict.percentile_real, verdict.percentile_fake)
    unusual = {True: "yes", False: "no", None: "?"}[verdict.unusual]
    return [
        shown_name(prediction.path),
        verdict.called or "no verdict",
        "" if verdict.probability is None else percent(verdict.probability),
        f"{verdict.score:.4f}",
        who_decides(prediction),
        percent(prediction.share),
        *("" if rank is None else percent(rank / 100) for rank in ranks),
        unusual,
    ]
