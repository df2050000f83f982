"""The results of a run on its model card, computed from predictions as in a report."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmsd.metrics.coverage import policy
from fmsd.metrics.layout import escape_markdown, markdown_table
from fmsd.metrics.score_meaning import format_rate
from fmsd.report.evidence import recompute_rows
from fmsd.report.resamples import resample_rows
from fmsd.report.rows import Row, load_rows
from fmsd.report.stamped import coverage_remarks
from fmsd.runs.evaluations import finished_evaluations
from fmsd.runs.folder import Run

RESAMPLES = 1000
"""Resamples of the videos behind an interval."""


def tested_row(run: Run) -> Row | None:
    """The results of a run and its evaluations, computed from predictions; None without a test."""
    tests = [run, *finished_evaluations(run)]
    if not any((test.folder / "results.csv").is_file() for test in tests):
        return None
    return recompute_rows(load_rows(run.folder))[0]


def results_section(row: Row | None) -> str:
    """A line per test dataset, with intervals, and the verdicts at the thresholds."""
    text = "## Results\n\n"
    if row is None:
        return text + "This run was not tested, so nothing is known of its errors.\n"
    found = resample_rows([row], "auc", RESAMPLES, verdicts=True)
    rows, notes = [], []
    for dataset in row.prediction_files:
        results = row.results.filter(dataset=dataset)
        videos, real = results.select("n_videos", "n_real_videos").row(0)
        stamps = " ".join(f"`{stamp}`" for stamp in row.stamps_of(dataset))
        rows.append(
            [
                escape_markdown(dataset),
                f"{real:,} + {videos - real:,}",
                *(
                    _with_interval(results, found.intervals, dataset, level)
                    for level in ("video", "frame")
                ),
                *(_value(results, "video", metric) for metric in ("eer", "bacc_val")),
                stamps,
            ]
        )
        notes += _notes(row.record_of(dataset), dataset)
        own = policy(row.facts()[row.stamps_of(dataset)[0]])
        notes += [(dataset, remark) for remark in coverage_remarks(results, own)]
    header = ["test data", "real + fake videos", "video AUC", "frame AUC", "video EER"]
    header += ["balanced accuracy", "protocol stamps"]
    text += markdown_table(header, rows)
    text += (
        f"\nIn brackets the 95 % interval over {RESAMPLES:,} resamples of the videos; [-] where "
        "there are too few.\nBalanced accuracy of videos is at the threshold that the validation "
        "data chose.\nEach value was computed from the predictions when this card was written.\n"
        "A protocol stamp identifies frames, rules and training data of a test: `run.json` "
        "explains it, and only results of one stamp can be compared.\n"
    )
    text += "".join(f"\n**{escape_markdown(dataset)}**: {note}.\n" for dataset, note in notes)
    return text + _verdicts(found.verdicts)


def _verdicts(verdicts: pl.DataFrame) -> str:
    """How often the verdicts on the test videos would have been right and wrong."""
    if verdicts.is_empty():
        return ""
    header = ["test data", "threshold", "reals called fake", "false positives"]
    header += ["fakes called fake", "true positives"]
    rows = []
    for row in verdicts.iter_rows(named=True):
        real = row["false_positives"] + row["true_negatives"]
        fake = row["true_positives"] + row["false_negatives"]
        false, true = (
            format_rate((row[f"{kind}_rate"], row[f"{kind}_low"], row[f"{kind}_high"]))
            for kind in ("false_positive", "true_positive")
        )
        rows.append(
            [
                escape_markdown(row["dataset"]),
                f"{row['at']}: {row['threshold']:.4f}",
                f"{row['false_positives']:,} of {real:,}",
                false,
                f"{row['true_positives']:,} of {fake:,}",
                true,
            ]
        )
    return (
        f"\n### Verdicts\n\n{markdown_table(header, rows)}\nOf the test videos, at the thresholds "
        "that the validation data chose for at most 1, 5 and 10 % false positives (`fpr1`, "
        "`fpr5`, `fpr10`); in brackets 95 % intervals.\nA rate of false positives far above that "
        "says that the threshold does not hold on this data.\n"
    )


def _with_interval(results: pl.DataFrame, intervals: pl.DataFrame, dataset: str, level: str) -> str:
    found = intervals.filter(dataset=dataset, level=level).select("low", "high").rows()
    ends = f"[{found[0][0]:.3f}, {found[0][1]:.3f}]" if found else "[-]"
    return f"{_value(results, level, 'auc')} {ends}"


def _value(results: pl.DataFrame, level: str, metric: str) -> str:
    found = results.filter(level=level, metric=metric)["value"].to_list()
    return f"{found[0]:.3f}" if found else "-"


def _notes(record: Mapping[str, Any], dataset: str) -> list[tuple[str, str]]:
    """What a reader must know of the test files; without their names."""
    notes = []
    if count := (record.get("overlap") or {}).get(dataset):
        notes.append((dataset, f"{count:,} of these test frames are training frames"))
    if change := (record.get("pixels") or {}).get(dataset):
        notes.append(
            (dataset, f"{change['changed']:,} test files had changed since the run's first test")
        )
    return notes
