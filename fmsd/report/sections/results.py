"""Sections with tables of results: all metrics, forgeries and robustness."""

import shlex
from dataclasses import replace

import polars as pl

from fmsd.figures.robustness import plot_robustness
from fmsd.redaction import redact_words
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import number_table
from fmsd.report.tables import METRIC_NAMES, results_table


def results_section(overview: Overview) -> Section:
    """The tables of all metrics, one shown at a time, and the differences from a baseline."""
    panes = {
        (METRIC_NAMES.get(metric, metric), level): number_table(table, overview.lines)
        for (metric, level), table in overview.tables.items()
    }
    body = html.panes_by_choice(panes, ("metric", "level"))
    if overview.differences:
        differences = {
            (table.level,): number_table(table, {}) for table in reversed(overview.differences)
        }
        body += html.panes_by_choice(differences, ("level of the differences",))
    body += html.paragraph(
        "A click on a header sorts. Lines before names are those of the figures below.", "quiet"
    )
    body += html.folded("The overrides behind the names", overrides_table(overview))
    return Section("results", "Results", body)


def overrides_table(overview: Overview) -> str:
    """The overrides of each row as they were written: those that vary, and those of a run."""
    rows: dict[str, tuple[str, str, str]] = {}
    for row in overview.rows:
        words = redact_words(list(row.record.get("overrides", ())))
        rows.setdefault(row.label, (row.label, row.setting, " ".join(map(shlex.quote, words))))
    header = ("", "what varies", "all overrides of the first run")
    return html.text_table("Overrides of each row", header, list(rows.values()), {0, 1, 2})


def forgeries_section(overview: Overview) -> Section | None:
    """The metric on each forgery."""
    table, metric = overview.resamples.domains, overview.metric
    if table.is_empty() or table["domain"].n_unique() < 2:
        return None
    panes = {}
    for level in ("video", "frame"):
        for dataset in overview.datasets:
            part = table.filter(dataset=dataset).with_columns(dataset=pl.col("domain"))
            if metric in part.filter(level=level)["metric"]:
                notes = overview.notes.for_columns((dataset, domain) for domain in part["domain"])
                results = replace(
                    results_table(part, metric, level, {}, {}, notes),
                    title=f"{METRIC_NAMES.get(metric, metric)} per {level} on {dataset}",
                )
                panes[level, dataset] = number_table(results, {}, heat=metric == "auc")
    if not panes:
        return None
    note = "The fakes of one forgery against all real videos of their dataset."
    body = html.paragraph(note, "quiet") + html.panes_by_choice(panes, ("level", "dataset"))
    return Section("domains", "Forgeries", body)


def robustness_section(overview: Overview) -> Section | None:
    """Video AUC under corruptions, as tables and curves."""
    results = overview.robustness
    if results is None:
        return None
    parts = []
    for dataset, table in overview.robustness_tables.items():
        aucs = results.filter(dataset=dataset, level="video", metric="auc")
        parts.append(number_table(table, overview.lines))
        tested = {label for label in overview.lines if label in aucs["run"]}
        if tested:
            labels = [label if label in tested else "" for label in overview.lines]
            keys = ("run", "level", "metric", "corruption", "severity")
            means = aucs.group_by(keys, maintain_order=True).agg(pl.col("value").mean())
            caption = f"{overview.dataset_title(dataset)}: AUC per video by severity"
            figure = plot_robustness(means, labels)
            parts.append(html.figure_element(figure, f"Robustness on {dataset}", caption))
    return Section("robustness", "Robustness", "".join(parts))
