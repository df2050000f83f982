"""The folder of an external detector: scores of test frames become a run without weights.

`fmsd report`, `verify` and `cite` take it as any other run; verbs that need weights refuse it.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.frame import DIGEST_COLUMNS
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.engine.predictions import with_expected
from fmsd.engine.scoring import manifest_records, results_of_tests
from fmsd.engine.stamp import protocol_stamps
from fmsd.errors import InputError
from fmsd.metrics.coverage import is_complete
from fmsd.metrics.equal_scores import has_equal_scores, warn_of_equal_scores
from fmsd.metrics.ranking import scale_metrics
from fmsd.metrics.table import LEVELS
from fmsd.redaction import redact_words
from fmsd.runs.claim import claim_run, remove_parts
from fmsd.runs.folder import Run, owning_run, write_text
from fmsd.runs.provenance import provenance

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""What a record says of the training of an external detector."""


@contextlib.contextmanager
def claimed_run(folder: Path, config: str) -> Iterator[Run]:
    """Claims the folder of a new run; if the block fails, nothing of it stays.

    The same command begins anew where it was killed before.

    Raises:
        InputError: the folder holds a run, or lies among the files of one.
    """
    if place := owning_run(folder):
        raise InputError(
            f"out={folder} lies among the files of the run in {place}", "give another folder"
        )
    run = Run(folder)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with claim_run(run, config, resumable=True, option="out"):
            remove_parts(run, keep=[run.config.name])
            yield run
    except BaseException:
        for place in new:
            with contextlib.suppress(OSError):  # another process has written into it
                place.rmdir()
        raise


def write_beside(folder: Path, name: str, table: pl.DataFrame) -> Path:
    """Writes a list beside the folder of a run that was refused, over no other file.

    Args:
        name: the end of the list's name, `scores` for `OUT.scores.csv`.

    Returns:
        The path of the list; that of an equal one, if there is one.
    """
    text = table.write_csv()
    names = (f"{folder.name}.{name}{number}.csv" for number in ("", *range(2, 10000)))
    path = next(
        place
        for place in map(folder.with_name, names)
        if not os.path.lexists(place) or _holds(place, text)
    )
    write_text(path, text)
    return path


def _holds(path: Path, text: str) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") == text
    return False


def fill_external_run(
    run: Run,
    data: DataModule,
    scores: Mapping[str, pl.DataFrame],
    external: Mapping[str, Any],
    command: Sequence[str],
    label: str | None,
    levels: Sequence[str] = LEVELS,
    overrides: Sequence[str] = (),
    coverage: str | None = None,
    cost: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Writes the files of a run whose folder was claimed, and returns its results.

    Args:
        run: from `claimed_run`.
        data: its test datasets are loaded.
        scores: of each test dataset: one row per row of its manifest, in its order, with `logit`
            (Float64, null where there is none) and `outcome`; and with `content`, the digests of
            the files, if it is known which files were scored.
        external: the declared facts, see `fmsd.runs.record.External`.
        command: the command line.
        label: the name of the row in reports; None for that of the detector.
        levels: the levels of the results: scores of whole videos have no frame level.
        overrides: of the command line.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.
        cost: further keys of the record: `seconds`, `parameters`, `device`.
        seed: of the detector; equal ones but for the seed are one row of a report.

    Raises:
        InputError: the scores give no metric.
    """
    record = external_record(external, data, levels, label, seed)
    parts = {
        name: with_expected(
            external_predictions(manifest, scores[name]), manifest, data.absent[name]
        )
        for name, manifest in data.tests.items()
    }
    metrics = scale_metrics(external["scale"])
    table, record["stamps"] = results_of_tests(
        parts, record, data.selection, coverage, metrics, levels
    )
    for name, predictions in parts.items():
        run.write_predictions(name, predictions)
    warn_of_equal_scores(
        [name for name, part in parts.items() if has_equal_scores(part["logit"].drop_nulls())]
    )
    run.write_results(table)
    record |= {"overrides": redact_words(overrides), **(cost or {})}
    run.finish(provenance(command) | record)
    return table


def external_predictions(manifest: Manifest, scores: pl.DataFrame) -> pl.DataFrame:
    """The rows of a manifest with their scores, as a run keeps predictions.

    Args:
        scores: see `fill_external_run`.

    Returns:
        The manifest's columns and `logit`; `content` where the files of all frames with a score
        are there; and `outcome` where not all frames have a score.
    """
    table = manifest.table.select(DIGEST_COLUMNS).with_columns(scores["logit"])
    if "content" in scores.columns:
        content = scores["content"]
        if lacking := (content.is_null() & scores["logit"].is_not_null()).sum():
            log.warning(
                "%d of the %d files of %s are not there, so its predictions have no digests of "
                "files.",
                lacking,
                len(content),
                table["dataset"][0],
            )
        else:
            table = table.with_columns(content)
    if not is_complete(scores):
        table = table.with_columns(scores["outcome"])
    return table


def external_record(
    external: Mapping[str, Any],
    data: DataModule,
    levels: Sequence[str],
    label: str | None,
    seed: int,
) -> dict[str, Any]:
    """The entries of `run.json` that do not follow from the command line alone."""
    trained = {
        "selection": UNKNOWN,
        "augment": UNKNOWN,
        "train": {UNKNOWN: external.get("sha256") or ""},
        "left_out": None,
    }
    overlap = dict.fromkeys(data.tests)
    return {
        "external": {**external, "levels": list(levels)},
        "label": label,
        "selection": UNKNOWN,
        "monitor": None,
        "monitored": None,
        "thresholds": None,
        "origin": trained,
        "stamps": protocol_stamps(data, trained | {"size": external.get("size")}, overlap, levels),
        "overlap": overlap,
        "choices": {},
        "seed": seed,
        "manifests": {"test": manifest_records(data.tests)},
        "suite": data.selection.suite,
        "skipped": data.skipped,
    }
