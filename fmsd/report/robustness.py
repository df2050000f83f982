"""Robustness of all rows: results under corruptions, and their tables."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from fmsd.metrics.layout import format_video_counts
from fmsd.report.comparability import ColumnNotes, compare_stamps
from fmsd.report.evidence import Evidence, recomputed_robustness
from fmsd.report.rows import Row
from fmsd.report.tables import Table, missing_intervals, results_table
from fmsd.report.tidy import with_row
from fmsd.runs.folder import CORRUPTIONS, read_results


def robustness_results(
    rows: Sequence[Row], differ: Sequence[str]
) -> tuple[pl.DataFrame | None, ColumnNotes]:
    """Video AUCs under corruptions with run and seed, and the notes of their columns.

    They are computed from the predictions. Of several evaluations of a corruption and severity the
    newest counts.

    Args:
        differ: see `fmsd.report.comparability.compare_stamps`.

    Raises:
        InputError: results of one column are not comparable, or do not follow from predictions.
    """
    parts, clean, evidence = [], [], Evidence()
    for row in rows:
        known: list[pl.DataFrame] = []
        for run, record in zip(row.runs, row.records, strict=True):
            path = run.folder / CORRUPTIONS
            if not path.is_file():
                run.check(CORRUPTIONS)  # the record may know of one that is gone
                continue
            table = read_results(path, ("corruption", "severity", "n_real_videos"))
            new = table
            if known:
                new = table.join(
                    pl.concat(known),
                    on=["dataset", "corruption", "severity"],
                    how="anti",
                    maintain_order="left",
                )
            if new.is_empty():
                continue
            known.append(new)
            parts.append(with_row(recomputed_robustness(evidence, run, record, new), row))
            run.check(CORRUPTIONS)
            files = dict.fromkeys(table["dataset"].unique(), run.folder / "predictions" / "clean")
            clean.append(replace(row, results=table.filter(severity=0), prediction_files=files))
    if not parts:
        return None, ColumnNotes()
    return pl.concat(parts, how="diagonal"), compare_stamps(clean, differ)


def robustness_tables(table: pl.DataFrame, notes: ColumnNotes) -> dict[str, Table]:
    """A table per dataset: video AUC of every row on clean images and under each corruption.

    Args:
        table: results with run, seed, corruption and severity.
        notes: letters of the clean results.
    """
    aucs = table.filter(level="video", metric="auc")
    return {
        str(dataset): _robustness_table(str(dataset), part, notes)
        for (dataset,), part in aucs.group_by("dataset", maintain_order=True)
    }


def _robustness_table(dataset: str, aucs: pl.DataFrame, notes: ColumnNotes) -> Table:
    corrupted = aucs.filter(pl.col("severity") > 0)
    severities = {
        str(name): shared_severities(part)
        for (name,), part in corrupted.group_by("corruption", maintain_order=True)
    }
    clean = aucs.filter(severity=0).select("run", "seed", "value", "n_videos", "n_real_videos")
    parts = {"clean": clean}
    for name, shared in severities.items():
        parts[name] = (
            corrupted.filter(pl.col("severity").is_in(shared), corruption=name)
            .group_by("run", "seed", maintain_order=True)
            .agg(pl.col("value").mean(), pl.col("n_videos", "n_real_videos").first())
        )
    tidy = pl.concat(
        [part.with_columns(dataset=pl.lit(column)) for column, part in parts.items()]
    ).with_columns(metric=pl.lit("auc"), level=pl.lit("video"))
    column_notes = notes.for_columns((dataset, column) for column in parts)
    used = "; ".join(
        f"{name}: {', '.join(map(str, shared)) or 'none'}" for name, shared in severities.items()
    )
    counts = "".join(f"{text}. " for text in format_video_counts(aucs).values())
    return replace(
        results_table(tidy, "auc", "video", {}, {}, column_notes),
        title=f"AUC per video on {dataset}",
        columns=[*parts],
        caption=f"{counts}Mean over the severities that all runs have, {used}.",
        videos={},
        missing_intervals=missing_intervals(aucs),
    )


def shared_severities(table: pl.DataFrame) -> list[int]:
    """The severities of one corruption that every run tested under it has."""
    return sorted(
        set.intersection(*(set(part["severity"]) for _, part in table.group_by("run", "seed")))
    )
