"""Earlier tests of a run: whether a dataset's files are those that it was tested on before."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.content import changed_files
from fmsd.errors import InputError
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions

log = logging.getLogger(__name__)


def compare_with_first_tests(
    run: Run, evaluation: Run, datasets: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Compares the files of an evaluation with those of the run's first test; warns of changes.

    The first test of a dataset is the run's own, or else that of its oldest evaluation.

    Args:
        evaluation: with its predictions.

    Returns:
        For each dataset with changed files: `since`, the folder of the first test, `changed`, the
        number of these files, `frames`, that of all, and `first`, the path of one.
    """
    folders = [run.folder, *sorted((run.folder / "evaluations").glob("*"))]
    others = [folder for folder in folders if folder.resolve() != evaluation.folder.resolve()]
    changes = {}
    for dataset in datasets:
        now = read_contents_of_test(evaluation.folder, dataset)
        tested = ((folder, read_contents_of_test(folder, dataset)) for folder in others)
        first = next(((folder, table) for folder, table in tested if table is not None), None)
        if now is None or first is None:
            continue
        folder, before = first
        if changed := changed_files(before, now):
            log.warning(
                "%d of the %d test files of %s have changed since the test in %s, %s for one.",
                len(changed),
                now.height,
                dataset,
                folder,
                changed[0],
            )
            changes[dataset] = {
                "since": str(folder),
                "changed": len(changed),
                "frames": now.height,
                "first": changed[0],
            }
    return changes


def read_contents_of_test(folder: Path, dataset: str) -> pl.DataFrame | None:
    """The path and content of each frame of a finished test; None where they are not known.

    Predictions that cannot be used are warned of: they do not matter to the scores of this test.

    Args:
        folder: of a run or an evaluation.
    """
    name = f"predictions/{dataset}.parquet"
    if not (folder / name).is_file():
        return None
    try:
        Run(folder).check(name)
        table = read_predictions(folder / name)
    except InputError as error:
        log.warning("This test is not compared with an earlier one. %s", error)
        return None
    return table.select("path", "content") if "content" in table.columns else None
