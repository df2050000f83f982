"""Results on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.console import print_table
from fmsd.metrics.layout import format_coverage, format_video_counts, pivot_datasets
from fmsd.metrics.score_meaning import RATES, format_rate, too_few_reals


def print_auc_table(table: pl.DataFrame, title: str, note: str) -> None:
    """Prints the AUC per frame and per video of every dataset, with its counts of videos.

    The note ends with the coverage of datasets in which not every video or frame has a score.
    """
    aucs, sizes = pivot_datasets(table), format_video_counts(table)
    rows = [[str(line[0]), *map(format_auc, line[1:])] for line in aucs.rows()]
    print_table(
        title,
        [f"{name}\n{sizes[name]}" if name in sizes else name for name in aucs.columns],
        rows,
        "; ".join([note, *format_coverage(table)]),
        name="auc",
        records=table.filter(metric="auc")
        .select(
            "dataset",
            "level",
            auc="value",
            real_videos="n_real_videos",
            fake_videos=pl.col("n_videos") - pl.col("n_real_videos"),
            expected="n_expected",
            scored="n_scored",
        )
        .to_dicts(),
    )


def print_robustness_tables(table: pl.DataFrame) -> None:
    """Prints a table per dataset: video AUC by corruption and severity, with means."""
    aucs, sizes = table.filter(level="video", metric="auc"), format_video_counts(table)
    for (dataset,), part in aucs.group_by("dataset", maintain_order=True):
        clean = part.filter(severity=0)["value"].item()
        grid = part.filter(pl.col("severity") > 0).pivot(
            "severity", index="corruption", values="value", maintain_order=True
        )
        grid = grid.with_columns(mean=pl.mean_horizontal(pl.exclude("corruption")))
        lines = [*grid.rows(), *grid.select(pl.lit("mean"), pl.exclude("corruption").mean()).rows()]
        rows = [[str(line[0]), *map(format_auc, line[1:])] for line in lines]
        print_table(
            f"Video AUC on {dataset} by severity; clean {format_auc(clean)}",
            grid.columns,
            rows,
            sizes[str(dataset)],
            name="robustness",
            records=part.select("dataset", "corruption", "severity", auc="value").to_dicts(),
        )


def print_verdicts(verdicts: pl.DataFrame | None, run: str | Path) -> None:
    """Prints the verdicts on the videos of every dataset, a line per threshold.

    Thresholds with too few real validation videos, at which a prediction gives no verdict, have no
    line; a note names them. Programs get all.

    Args:
        verdicts: see `fmsd.metrics.verdicts.count_verdicts`; None without validation predictions,
            which a sentence then says.
        run: the folder or address of the run that chose the thresholds.
    """
    if verdicts is None:
        print(
            f"There are no verdicts: {run} has no predictions of a validation split, which choose "
            "thresholds"
        )
        return
    reals = verdicts["validation_reals"][0]
    missing = {name: rate for name, rate in RATES.items() if too_few_reals(rate, reals)}
    rows, shown = [], ""
    for row in verdicts.iter_rows(named=True):
        if row["at"] in missing:
            continue
        name = "" if row["dataset"] == shown else row["dataset"]
        shown = row["dataset"]
        counts = ("true_positives", "false_negatives", "false_positives", "true_negatives")
        rates = [
            format_rate((row[f"{kind}_rate"], row[f"{kind}_low"], row[f"{kind}_high"]))
            for kind in ("false_positive", "true_positive")
        ]
        rows.append(
            [name, row["at"], f"{row['threshold']:.4f}", *(str(row[key]) for key in counts), *rates]
        )
    shown_at = [name for name in RATES if name not in missing]
    few = _too_few_sentence(missing, reals)
    if not shown_at:
        print(f"There are no verdicts on videos: {few}")
    example = "fpr5" if "fpr5" in shown_at else "".join(shown_at[:1])
    caption = (
        f"{example}: of the {reals} real validation videos at most {100 * RATES[example]:g} % were "
        f"called fake; in brackets 95 % intervals over videos"
        if example
        else ""
    )
    print_table(
        "Verdicts on videos at the thresholds that validation data chose",
        ["dataset", "at", "threshold", "TP", "FN", "FP", "TN", "FPR", "TPR"],
        rows,
        "; ".join(part for part in (caption, few) if part),
        ("at",),
        name="verdicts",
        records=verdicts.to_dicts(),
    )


def _too_few_sentence(missing: Mapping[str, float], reals: int) -> str:
    """How many real validation videos some thresholds need; empty for none.

    Args:
        missing: the false positive rates by the names of these thresholds.
        reals: the number of real validation videos.
    """
    if not missing:
        return ""
    least = [str(round(1 / rate)) for rate in missing.values()]
    return (
        f"{_enumeration(list(missing))} {'needs' if len(missing) == 1 else 'need'} "
        f"{_enumeration(least)} real validation videos; there {'is' if reals == 1 else 'are'} "
        f"{reals}"
    )


def _enumeration(words: Sequence[str]) -> str:
    """Words as text: `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def format_auc(value: float) -> str:
    """An AUC with three decimals."""
    return f"{value:.3f}"


def cost_line(record: Mapping[str, Any]) -> str:
    """One line on the cost of a run: trained parameters, minutes, and how weights were chosen.

    Args:
        record: content of its `run.json`.
    """
    if "merged" in record:
        return (
            f"merged from {', '.join(record['merged'])} without training in "
            f"{record['seconds']:.0f} s; coefficients: {record['selection']}"
        )
    if "imported" in record:
        about = record["imported"]
        return (
            f"{about['detector']}, imported from {about['file']} (SHA-256 "
            f"{about['sha256'][:12]}); its training data are unknown"
        )
    if "external" in record:
        about = record["external"]
        return (
            f"{about.get('detector') or about.get('file')}, no detector of fmsd (SHA-256 "
            f"{(about['sha256'] or 'unknown')[:12]}); its training data are unknown"
        )
    return (
        f"{record['trainable']:,} of {record['parameters']:,} parameters trained "
        f"({record['trainable'] / record['parameters']:.2%}), "
        f"{record['seconds'] / 60:.1f} min, weights of epoch {record['epoch'] + 1} by "
        f"{record['selection']}"
    )
