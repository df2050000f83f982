"""Sections on the record of all runs: cost, protocol, commands and folders."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fmsd.redaction import REDACTED, redact_words
from fmsd.report import html
from fmsd.report.comparability import differing_facts, shorten_fact
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.protocol_words import protocol_sentences
from fmsd.report.rows import Row
from fmsd.report.stamped import PIXELS
from fmsd.report.suites import suite_table
from fmsd.report.trainings import training_of
from fmsd.runs.folder import Run

COST_HEADER = (
    "",
    "runs",
    "minutes",
    "device",
    "processes",
    "trained parameters",
    "share",
    "peak GPU memory, GiB",
)

DEVICE = COST_HEADER.index("device")


def cost_section(overview: Overview) -> Section:
    """Time, device, parameters and memory of each row; empty columns are left out."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in overview.rows:
        groups.setdefault(row.label, []).append(row.record)
    lines = [_cost_line(label, records) for label, records in groups.items()]
    columns = [
        index
        for index in range(len(COST_HEADER))
        if index == 0 or any(line[index] is not None for line in lines)
    ]
    table = html.text_table(
        "Cost of a run, mean over seeds",
        [COST_HEADER[index] for index in columns],
        [[line[index] for index in columns] for line in lines],
        {0, columns.index(DEVICE)} if DEVICE in columns else {0},
    )
    return Section("cost", "Cost", table)


def _cost_line(label: str, records: Sequence[Mapping[str, Any]]) -> tuple[str | int | None, ...]:
    """The cells below `COST_HEADER` for the seeds of a row; others' cost is unknown."""
    if {"imported", "external"} & records[0].keys():
        return (label, len(records), None, "-", None, None, None, None)
    seconds = [record["seconds"] for record in records if record.get("seconds") is not None]
    devices = dict.fromkeys(
        str(record.get("accelerator") or record.get("device") or "-") for record in records
    )
    peaks = [record["peak_memory"] for record in records if record.get("peak_memory")]
    trainable, parameters = records[0].get("trainable"), records[0].get("parameters")
    share = None
    if trainable is not None and parameters:
        share = f"{100 * trainable / parameters:.2f} %"
    return (
        label,
        len(records),
        f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else None,
        ", ".join(devices),
        records[0].get("processes"),
        None if trainable is None else f"{trainable:,}",
        share,
        f"{max(peaks) / 2**30:.1f}" if peaks else None,
    )


def protocol_section(overview: Overview) -> Section:
    """The facts of the protocol: those common to all stamps, and a table of the others."""
    stamps = {
        (stamp, facts.get(PIXELS)): facts
        for row in overview.rows
        for stamp, facts in row.facts().items()
        if stamp in row.results["stamp"]
    }
    names = differing_facts(list(stamps.values()))
    common = {
        name: value for name, value in next(iter(stamps.values())).items() if name not in names
    }
    body = html.paragraph(" ".join(protocol_sentences(list(stamps.values()))))
    facts = html.paragraph(
        "Results may only be compared where these facts agree. Each stamp is the hash of them all "
        "but pixels, the digest of the test files.",
        "quiet",
    )
    facts += html.definition_list(
        {name: shorten_fact(value, 400) for name, value in common.items()}
    )
    first = [name for name in ("dataset", "level") if name in names]
    names = [*first, *(name for name in names if name not in first)]
    lines = [
        [stamp, *(shorten_fact(own[name], 200) if name in own else None for name in names)]
        for (stamp, _), own in stamps.items()
    ]
    facts += html.text_table(
        "What differs between stamps", ["stamp", *names], lines, range(len(names) + 1)
    )
    body += html.folded("All facts and digests", facts)
    remarks = [
        (row.label, row.seed, dataset, remark)
        for row in overview.rows
        for dataset in row.prediction_files
        for remark in row.remarks(dataset)
    ]
    if remarks:
        header = ["", "seed", "dataset", "remark"]
        body += html.text_table(
            "Remarks on test frames and their files", header, remarks, {0, 2, 3}
        )
    body += suite_table(overview.rows)
    return Section("protocol", "Protocol", body)


def repeat_section(overview: Overview) -> Section:
    """The commands, versions and folders of all runs."""
    commands = dict.fromkeys(
        format_command(record["command"])
        for row in overview.rows
        for record in (*_imports(row), *row.records)
        if record.get("command")
    )
    body = html.code_block("\n".join(commands))
    if any(REDACTED in command for command in commands):
        body += html.paragraph(
            f"{REDACTED} stands for a password or token, which is not recorded: give it again.",
            "quiet",
        )
    body += html.definition_list(_environment(overview))
    lines = [
        (
            row.label,
            row.seed,
            str(run.folder.relative_to(overview.folder)),
            row.record.get("selection"),
        )
        for row in overview.rows
        for run in row.runs
    ]
    header = ["", "seed", f"folder below {overview.folder.resolve().name}", "selection"]
    body += html.text_table("Folders of the runs", header, lines, {0, 2, 3})
    return Section("repeat", "How to repeat", body)


def _imports(row: Row) -> list[Mapping[str, Any]]:
    """The records of the imports that a row's evaluations tested, which have no results."""
    places = dict.fromkeys(
        training_of(run, record)
        for run, record in zip(row.runs, row.records, strict=True)
        if "imported" in record and "run" in record
    )
    return [Run(place).record() for place in places if (place / "run.json").is_file()]


def _environment(overview: Overview) -> dict[str, str]:
    """Revisions, machines and package versions of all runs, each different one once."""
    records = [row.record for row in overview.rows]
    values = {
        "git revision": {str(record.get("revision")) for record in records},
        "machine": {str(record.get("machine")) for record in records},
        "versions": {
            ", ".join(
                f"{package} {version}" for package, version in record.get("versions", {}).items()
            )
            for record in records
        },
    }
    return {
        name: "; ".join(known)
        for name, texts in values.items()
        if (known := sorted(texts - {"None", ""}))
    }


def format_command(command: Sequence[str]) -> str:
    """A command as typed into a shell; its first element is the program with its verb."""
    return " ".join([*command[:1], *map(shlex.quote, redact_words(command[1:]))])
