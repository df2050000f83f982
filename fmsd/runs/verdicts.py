"""The verdicts of a run on its test videos, computed from its predictions."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmsd.metrics.coverage import cover, policy
from fmsd.metrics.definitions import OURS
from fmsd.metrics.verdicts import count_verdicts, video_points
from fmsd.runs.folder import VALIDATION, Run
from fmsd.runs.predictions import read_predictions


def run_verdicts(
    tested: Run, training: Run, stamps: Mapping[str, Mapping[str, Any]]
) -> pl.DataFrame | None:
    """The verdicts on the datasets that a run or an evaluation tested.

    Args:
        training: its validation predictions choose the thresholds.
        stamps: of the test, as its record has them: they say how frames become videos.

    Returns:
        See `fmsd.metrics.verdicts.count_verdicts`; None where there are no validation predictions,
        as of a merge.

    Raises:
        InputError: predictions are damaged, or of one class only.
    """
    path = training.folder / VALIDATION
    if not path.is_file():
        return None
    validation = read_predictions(path)
    tests = {facts["dataset"]: facts for facts in stamps.values()}
    return pl.concat(
        count_verdicts(
            cover(
                read_predictions(tested.folder / "predictions" / f"{dataset}.parquet"),
                policy(facts),
            ),
            video_points(validation, facts["video_score"]),
            facts["naming"],
            facts["video_score"],
            facts.get("definitions", OURS),
        )
        for dataset, facts in tests.items()
    )
