"""The folder of an external detector: scores of test frames become a run without weights.

`fmsd report`, `verify` and `cite` take it as any other run; verbs that need weights refuse it.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.data.content_files import file_states, read_digests
from fmsd.data.frame import DIGEST_COLUMNS
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule
from fmsd.engine.scoring import manifest_records
from fmsd.engine.stamp import protocol_stamps, with_frames, with_stamps
from fmsd.metrics.equal_scores import has_equal_scores, warn_of_equal_scores
from fmsd.metrics.score_scale import scale_metrics
from fmsd.metrics.table import LEVELS, compute_results
from fmsd.redaction import redact_words
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import Run
from fmsd.runs.provenance import provenance

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""What a record says of the training of an external detector."""

SCORED = "scored"
OUTCOMES = (SCORED, "no_face", "unreadable", "missing", "failed")


def write_external_run(
    folder: Path,
    data: DataModule,
    scores: Mapping[str, pl.DataFrame],
    external: Mapping[str, Any],
    config: str,
    command: Sequence[str],
    label: str | None,
    levels: Sequence[str] = LEVELS,
    overrides: Sequence[str] = (),
) -> Run:
    """Writes the folder of a run of an external detector: all at once, or nothing.

    Args:
        folder: of the run; it must hold none.
        data: its test datasets are loaded.
        scores: of each test dataset: one row per row of its manifest, in its order, with `logit`
            (Float64, null where there is none) and `outcome`; and with `content`, the digests of
            the files, if they were read already.
        external: the declared facts, see `fmsd.runs.record.External`.
        config: text of the run's configuration.
        command: the command line.
        label: the name of the row in reports; None for that of the detector.
        levels: the levels of the results: scores of whole videos have no frame level.
        overrides: of the command line.

    Raises:
        InputError: the folder holds a run, or the scores give no metric.
    """
    run = Run(folder)
    with claim_run(run, config, option="out"):
        fill_external_run(run, data, scores, external, command, label, levels, overrides)
    return run


def fill_external_run(
    run: Run,
    data: DataModule,
    scores: Mapping[str, pl.DataFrame],
    external: Mapping[str, Any],
    command: Sequence[str],
    label: str | None,
    levels: Sequence[str] = LEVELS,
    overrides: Sequence[str] = (),
) -> None:
    """Writes the files of a run whose folder was claimed; see `write_external_run`."""
    record = external_record(external, data, levels, label)
    parts = {
        name: external_predictions(manifest, scores[name]) for name, manifest in data.tests.items()
    }
    selection = data.selection
    table = compute_results(
        pl.concat(
            [scored_frames(part) for part in parts.values()], how="diagonal"
        ),  # files of one dataset may be unknown
        UNKNOWN,
        selection.protocol,
        selection.naming,
        selection.video_score,
        None,
        scale_metrics(external["scale"]),
    ).filter(pl.col("level").is_in(list(levels)))
    table = with_frames(with_stamps(table, record["stamps"]), parts, record["overlap"])
    for name, predictions in parts.items():
        run.write_predictions(name, predictions)
    warn_of_equal_scores(
        [name for name, part in parts.items() if has_equal_scores(part["logit"].drop_nulls())]
    )
    run.write_results(table)
    run.finish(provenance(command) | record | {"overrides": redact_words(overrides)})


def external_predictions(manifest: Manifest, scores: pl.DataFrame) -> pl.DataFrame:
    """The rows of a manifest with their scores, as a run keeps predictions.

    Args:
        scores: see `write_external_run`.

    Returns:
        The manifest's columns and `logit`; `content` where all files are there; and `outcome`
        where not all frames have a score.
    """
    table = manifest.table.select(DIGEST_COLUMNS).with_columns(scores["logit"].cast(pl.Float64))
    content = scores["content"] if "content" in scores.columns else file_contents(manifest)
    if content.null_count():
        log.warning(
            "%d of the %d files of %s cannot be read, so its predictions have no digests of files.",
            content.null_count(),
            len(content),
            table["dataset"][0],
        )
    else:
        table = table.with_columns(content.alias("content"))
    if (scores["outcome"] != SCORED).any():
        table = table.with_columns(scores["outcome"])
    return table


def file_contents(manifest: Manifest) -> pl.Series:
    """The digest of the bytes of each frame's file; null where there is no such file."""
    states = file_states(manifest.files())
    there = states["bytes"].is_not_null()
    digests = read_digests(states.filter(there), manifest.root)["content"]
    rows = pl.DataFrame({"row": there.arg_true(), "content": digests})
    every = pl.DataFrame({"row": pl.arange(len(there), eager=True, dtype=pl.UInt32)})
    return every.join(rows, on="row", how="left", maintain_order="left")["content"]


def scored_frames(predictions: pl.DataFrame) -> pl.DataFrame:
    """The frames that have a score."""
    return predictions.filter(pl.col("logit").is_not_null())


def external_record(
    external: Mapping[str, Any], data: DataModule, levels: Sequence[str], label: str | None
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
        "stamps": protocol_stamps(data, trained, overlap),
        "overlap": overlap,
        "choices": {},
        "seed": 0,
        "epoch": None,
        "trainable": 0,
        "parameters": external.get("parameters") or 0,
        "seconds": external.get("seconds") or 0.0,
        "manifests": {"test": manifest_records(data.tests)},
        "skipped": data.skipped,
    }
