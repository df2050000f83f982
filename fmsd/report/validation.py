"""What the validation predictions of the runs of a report say of their scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import ScoreMeaning
from fmsd.report.rows import Row
from fmsd.runs.folder import VALIDATION
from fmsd.runs.predictions import read_predictions


def read_validation(row: Row) -> pl.DataFrame | None:
    """The predictions on the validation split of a run; None where there are none.

    Raises:
        InputError: they are changed or damaged.
    """
    training = row.training
    if not (training.folder / VALIDATION).is_file():
        return None
    training.check(VALIDATION)
    return read_predictions(training.folder / VALIDATION)


class KnownMeanings:
    """Finds out what the scores of rows mean; validation predictions are read once."""

    def __init__(self) -> None:
        self.known: dict[tuple[Path, str], Mapping[str, ScoreMeaning] | None] = {}

    def __call__(self, row: Row, video_score: str) -> Mapping[str, ScoreMeaning] | None:
        """What scores mean, by level; None without validation predictions.

        Args:
            video_score: see `fmsd.metrics.video.aggregate_videos`.

        Raises:
            InputError: the predictions are changed, damaged, or of one class only.
        """
        key = row.training.folder, video_score
        if key not in self.known:
            validation = read_validation(row)
            self.known[key] = (
                None if validation is None else score_meanings(validation, video_score)
            )
        return self.known[key]


def run_names(rows: Sequence[Row]) -> list[str]:
    """The label of each run, with its seed where a label has several."""
    counts = Counter(row.label for row in rows)
    return [run_name(row.label, row.seed, counts[row.label]) for row in rows]


def run_name(label: str, seed: int | None, count: int) -> str:
    """The name of a run of a label with `count` runs."""
    return label if count == 1 else f"{label}, seed {seed}"
