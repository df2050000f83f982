"""Earlier tests of a run: whether a dataset's files are those that it was tested on before."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.content import changed_files
from fmsd.metrics.coverage import framed
from fmsd.runs.evaluations import finished_evaluations
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierTest:
    """A test of a dataset.

    Args:
        folder: of the run or evaluation.
        frames: the path and content of each frame.
    """

    folder: Path
    frames: pl.DataFrame


def first_tests(run: Run, evaluation: Run, datasets: Iterable[str]) -> dict[str, EarlierTest]:
    """The run's first test of each dataset: its own, or else that of its oldest evaluation.

    Tests that are not finished, and those of fmsd 0.1.0, which do not know the content of their
    frames, are passed over.

    Args:
        evaluation: the one that is being made.

    Raises:
        InputError: a record or predictions of an earlier test are damaged.
    """
    tests = [*([run] if run.finished else []), *finished_evaluations(run)]
    tests = [one for one in tests if one.folder.resolve() != evaluation.folder.resolve()]
    found = {}
    for dataset in datasets:
        tested = ((one.folder, read_contents_of_test(one, dataset)) for one in tests)
        first = next(((folder, table) for folder, table in tested if table is not None), None)
        if first is not None:
            found[dataset] = EarlierTest(*first)
    return found


def compare_with_first_tests(
    first: Mapping[str, EarlierTest], evaluation: Run
) -> dict[str, dict[str, Any]]:
    """Compares the files of an evaluation with those of first tests; warns of changes.

    Args:
        first: by dataset.
        evaluation: with its predictions.

    Returns:
        For each dataset with changed files: `since`, the folder of the first test, `changed`, the
        number of these files, `frames`, that of all, and `first`, the path of one.
    """
    changes = {}
    for dataset, before in first.items():
        now = framed(read_predictions(predictions_of(evaluation, dataset)))
        if changed := changed_files(before.frames, now):
            log.warning(
                "%d of the %d test files of %s have changed since the test in %s, %s for one.",
                len(changed),
                now.height,
                dataset,
                before.folder,
                changed[0],
            )
            changes[dataset] = {
                "since": str(before.folder),
                "changed": len(changed),
                "frames": now.height,
                "first": changed[0],
            }
    return changes


def predictions_of(run: Run, dataset: str) -> Path:
    """The file of a run's predictions on a dataset."""
    return run.folder / "predictions" / f"{dataset}.parquet"


def read_contents_of_test(run: Run, dataset: str) -> pl.DataFrame | None:
    """The path and content of each frame of a finished test; None where they are not known.

    Raises:
        InputError: the predictions are not what the test wrote.
    """
    path = predictions_of(run, dataset)
    if not path.is_file():
        return None
    run.check(f"predictions/{path.name}")
    table = framed(read_predictions(path))
    return table.select("path", "content") if "content" in table.columns else None
