"""Examining: what is wrong with a copy of a dataset, and which shortcuts it offers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from fmsd.atomic import atomic
from fmsd.console import counted, show
from fmsd.data.audit.examination import (
    CHUNK,
    FILM,
    LOOK,
    Finding,
    Job,
    file_findings,
    listed,
    looks,
    refused,
    short_findings,
    sizes,
    stills,
    table_findings,
)
from fmsd.data.audit.summary import SEVERITIES, said
from fmsd.data.manifest import SPLITS, Manifest, evenly
from fmsd.data.processes import cores
from fmsd.data.selection import Selection
from fmsd.errors import InputError
from fmsd.metrics.shortcuts import KINDS, NUMBERS, STRONG, Shortcut, shortcuts
from fmsd.ownership import check_replaceable


def doctor(
    data: Selection,
    out: Path,
    frames: int | None = 32,
    limit: int | None = 20000,
    workers: int | None = None,
) -> bool:
    """Examines a copy, prints and writes what it found, and returns whether the copy can be used.

    Where the data names datasets to train or test on, those are examined, otherwise all that the
    root holds.

    Args:
        out: where the report is written as JSON.
        frames: videos with fewer are told; None for none.
        limit: at most so many files are opened; the others are only looked for. None for all.
        workers: processes that read files; None for one per core, 0 for this one.

    Raises:
        InputError: numbers out of range, or a file in the way of the report.
    """
    if wrong := [
        f"{name}={value}"
        for name, value in (("frames", frames), ("limit", limit))
        if value is not None and value < 1
    ]:
        raise InputError(f"{', '.join(wrong)} must be at least 1", "null means no limit")
    if workers is not None and workers < 0:
        raise InputError(
            f"workers={workers} is out of range",
            "give at least 0, which means no processes beside this one",
        )
    if out.suffix != ".json":
        raise InputError(f"The report is a JSON file, not {out}", "give out=FILE.json")
    check_replaceable([out], out, _is_report, "fmsd doctor", "give another out=FILE.json")
    manifest, findings = scanned(data)
    parts, ways, held, opened = pl.DataFrame(), list[Shortcut](), 0, 0
    if manifest is not None:
        whole = {} if any(finding.check == "refused" for finding in findings) else data.expected
        missing = [
            sentence
            for finding in findings
            if finding.check == "missing"
            for sentence in finding.examples
        ]
        parts = counts(manifest, str(data.name), whole)
        findings += [
            *sound(manifest),
            *table_findings(manifest, str(data.name), whole, data.names, frames, frames, missing),
        ]
        files = seen(manifest, limit, cores() if workers is None else workers)
        held, opened = files.height, files["opened"].sum()
        found = properties(files)
        films = found.select(
            "dataset", "video", frames=pl.when(pl.col("listed") == 0).then(pl.col("frames"))
        )
        findings += [
            *file_findings(files, manifest.root),
            *([] if frames is None else short_findings(films, frames)),
        ]
        ways = shortcuts(found.filter(pl.col("label").is_in([0, 1])))
    findings = sorted(
        [*findings, *told(ways)], key=lambda finding: SEVERITIES.index(finding.severity)
    )
    numbers = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in SEVERITIES
    }
    report = {
        "data": data.name,
        "root": str(data.root_path),
        "files": held,
        "opened": opened,
        **numbers,
        "counts": parts.to_dicts(),
    }
    report |= {
        "findings": [asdict(finding) | {"count": finding.count} for finding in findings],
        "shortcuts": [asdict(way) for way in ways],
    }
    with atomic(out) as partial:
        partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    shown(data, parts, findings, ways)
    if opened == limit:
        print(f"Of {held:,} files {opened:,} were opened, evenly spread; limit=null opens all.")
    print(f"{said(numbers)}. Every place is listed in {out}")
    return not numbers["fatal"]


def _is_report(path: Path) -> bool:
    return {"data", "root", "opened", "findings", "shortcuts"} <= set(
        json.loads(path.read_text(encoding="utf-8"))
    )


def scanned(data: Selection) -> tuple[Manifest | None, list[Finding]]:
    """The files of the datasets that the data names, and what the source says about them.

    Raises:
        InputError: the data has no root.
    """
    root = data.root_path
    try:
        written = data.stored_manifest
        if written is not None:
            written.files()
    except (InputError, OSError, pl.exceptions.PolarsError) as error:
        return None, [refused(error)]
    manifest, findings = listed(data.source, root) if written is None else (stills(written), [])
    if manifest is None:
        return None, findings
    known, wanted = (
        manifest.table["dataset"].drop_nulls().unique().sort().to_list(),
        [*data.train_names, *data.test_names],
    )
    held = f"{root if data.manifest is None else data.manifest} holds {', '.join(known)}"
    if not wanted or set(wanted) & set(known):
        if unknown := [name for name in data.train_names if name not in known]:
            said = f"{held}, not {', '.join(unknown)} of data.train"
            findings.append(
                Finding(
                    "for testing only", "note", [said], "to train on it, correct data.train=[...]"
                )
            )
        return manifest.where(dataset=wanted) if wanted else manifest, findings
    here = dict.fromkeys(name for name in wanted if name not in data.others)
    place = "data.root" if data.manifest is None else "data.manifest"
    refusal = InputError(
        f"{held}, not {', '.join(here or wanted)}",
        f"correct {place}, or name what it holds in data.train=[...] and data.test=[...]",
    )
    return manifest, [*findings, refused(refusal)]


def sound(manifest: Manifest) -> list[Finding]:
    """What training would refuse the table for."""
    try:
        manifest.validate(files=False)
    except InputError as error:
        return [refused(error)]
    return []


def seen(manifest: Manifest, limit: int | None, workers: int) -> pl.DataFrame:
    """The manifest's table with `size`, what was seen in the files that were opened, and `opened`."""
    paths = manifest.files()
    found = list(counted(sizes(paths), "Looking for files", len(paths), "files"))
    table = manifest.table.with_columns(size=pl.Series(found, dtype=pl.Int64)).with_row_index("row")
    there = table.with_columns(file=pl.Series(paths), hashed=pl.len().over("size") > 1).filter(
        pl.col("size") > 0
    )
    chosen = there[evenly(there.height, limit)] if limit is not None else there
    jobs = [Job(*row) for row in chosen.select("file", "size", "hashed", "film").rows()]
    taken = list(
        counted(
            looks(jobs, min(workers, len(jobs) // CHUNK + 1)), "Opening files", len(jobs), "files"
        )
    )
    opened = pl.DataFrame(taken, schema=LOOK, orient="row").with_columns(
        chosen["row"], opened=pl.lit(True)
    )
    return table.join(opened, on="row", how="left", maintain_order="left").with_columns(
        pl.col("opened").fill_null(False)
    )


def properties(files: pl.DataFrame) -> pl.DataFrame:
    """A row per video with the properties that might tell its label: medians over what training reads of it, its frames before its file."""
    read = files.with_columns(listed=(~FILM).sum().over("video")).filter(
        ~FILM | (pl.col("listed") == 0)
    )
    measured = read.with_columns(
        pl.col("size").alias("file size"),
        pl.col("bits").alias("bits per pixel"),
        pl.col("quality").alias("JPEG quality"),
        pl.col("kind").alias("file type"),
        pl.col("chroma").alias("chroma subsampling"),
        aspect=pl.col("width") / pl.col("height"),
        frames=pl.when(pl.col("listed") > 0).then(pl.col("listed")).otherwise(pl.col("length")),
    )
    constant = (pl.col(name).first() for name in ("label", "dataset", "split", "listed"))
    words = (pl.col(name).drop_nulls().first() for name in KINDS)
    return measured.group_by("video", maintain_order=True).agg(
        *constant, *(pl.col(name).median() for name in NUMBERS), *words
    )


def told(ways: Sequence[Shortcut]) -> list[Finding]:
    """Shortcuts as findings, strong ones as warnings."""
    remedy = "make both classes alike in it, or say it beside every number"
    strong, weak = (
        [
            f"{way.dataset} {way.split}: {way.says} (AUC {way.auc:.3f})"
            for way in ways
            if (way.auc >= STRONG) == whether
        ]
        for whether in (True, False)
    )
    found = (
        Finding("strong shortcuts", "warning", strong, remedy),
        Finding("shortcuts", "note", weak, remedy),
    )
    return [finding for finding in found if finding.examples]


def counts(manifest: Manifest, name: str, whole: Mapping[str, Mapping[str, int]]) -> pl.DataFrame:
    """Numbers of videos, frames and video files of every dataset, split and domain, and of the videos of a whole copy where that is known.

    Args:
        name: the dataset that `whole` is about; where that knows numbers of all splits together, a
            row `all` compares them.
    """
    wanted = [
        (name, split, domain, count)
        for split, domains in whole.items()
        for domain, count in domains.items()
    ]
    known = pl.DataFrame(
        wanted,
        schema={"dataset": pl.String, "split": pl.String, "domain": pl.String, "whole": pl.Int64},
        orient="row",
    )
    parts = pl.concat([manifest.table, manifest.table.with_columns(split=pl.lit("all"))]).group_by(
        "dataset", "split", "domain"
    )
    numbers = parts.agg(
        pl.col("video").n_unique().alias("videos"),
        (~FILM).sum().alias("frames"),
        FILM.sum().alias("files"),
    )
    order = pl.col("split").replace_strict(
        {split: place for place, split in enumerate(SPLITS)}, default=len(SPLITS)
    )
    joined = numbers.join(known, on=["dataset", "split", "domain"], how="left").sort(
        "dataset", order, "domain"
    )
    return joined.filter(pl.col("split").ne_missing("all") | pl.col("whole").is_not_null())


def shown(
    data: Selection, parts: pl.DataFrame, findings: Sequence[Finding], ways: Sequence[Shortcut]
) -> None:
    """Prints what was found."""
    root = f"{data.root_path}/"
    if not parts.is_empty():
        held = parts.select(
            name for name in parts.columns if name not in ("files", "whole") or parts[name].sum()
        )
        rows = [
            [
                "-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell
                for cell in row
            ]
            for row in held.rows()
        ]
        named = {"files": "video files", "whole": "of a whole copy"}
        show(
            f"Videos of {data.root_path}",
            [named.get(name, name) for name in held.columns],
            rows,
            words=("split", "domain"),
        )
    if ways:
        rows = [
            [way.dataset, way.split, way.property, f"{way.auc:.3f}", str(way.videos), way.says]
            for way in ways
        ]
        header = ["dataset", "split", "property", "AUC", "videos", "direction"]
        show(
            "What tells the label by itself", header, rows, words=("split", "property", "direction")
        )
    if findings:
        rows = [
            [
                one.check,
                one.severity,
                f"{one.count:,}",
                one.examples[0].replace(root, ""),
                one.remedy,
            ]
            for one in findings
        ]
        header = ["check", "severity", "count", "example", "remedy"]
        show(
            f"What was found in data={data.name}",
            header,
            rows,
            words=("severity", "example", "remedy"),
        )
