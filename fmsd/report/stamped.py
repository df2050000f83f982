"""Results with the facts behind their stamps, and with remarks on the files they were tested on."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.errors import InputError
from fmsd.metrics.coverage import coverage_text
from fmsd.runs.folder import Run, read_results

log = logging.getLogger(__name__)

PIXELS = "pixels"
"""The column of results with the digest of a dataset's files, which reports take as a fact."""


def stamped_facts(
    results: pl.DataFrame, stamps: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yields each dataset and level of results with its stamp, and the facts behind it.

    Args:
        stamps: the facts by stamp; the results add the digest of the dataset's files as `pixels`,
            unless they are of fmsd 0.1.0.
    """
    columns = [name for name in ("dataset", "level", "stamp", PIXELS) if name in results.columns]
    for dataset, level, stamp, *pixels in (
        results.select(columns).unique(maintain_order=True).rows()
    ):
        known = {PIXELS: pixels[0]} if pixels and pixels[0] is not None else {}
        yield dataset, level, stamp, {**stamps[stamp], **known}


def remarks(record: Mapping[str, Any], dataset: str) -> list[str]:
    """What a reader of results must know of the test files, as phrases.

    Args:
        record: content of the `run.json` of the run or evaluation that tested the dataset.
    """
    phrases = []
    if count := (record.get("overlap") or {}).get(dataset):
        phrases.append(f"{count:,} of these test frames are training frames (overlap=allow)")
    if change := (record.get("pixels") or {}).get(dataset):
        phrases.append(
            f"{change['changed']:,} of the {change['frames']:,} test files changed since the test "
            f"in {change['since']}, {change['first']} for one"
        )
    return phrases


def coverage_remarks(results: pl.DataFrame, policy: str) -> list[str]:
    """What a reader of results must know of videos, or else frames, without a score, as phrases.

    Args:
        results: of one dataset; those of earlier versions do not count them.
        policy: see `fmsd.metrics.coverage.cover`.
    """
    if "n_expected" not in results.columns:
        return []
    counts = results.drop_nulls("n_expected").unique("level", keep="first")
    partial = counts.filter(pl.col("n_scored") < pl.col("n_expected")).sort("level")
    return [
        f"{row['level']}s: {coverage_text(row)} (coverage={policy})"
        for row in partial.tail(1).iter_rows(named=True)
    ]


def warn_of_other_protocol(
    run: Run,
    dataset: str,
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
    used_folder: Path,
    used: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    """Warns if an unused test of a dataset followed another protocol than the one in use.

    Args:
        facts: of the unused test, by dataset and level.
        used: the same of all tests in use.
    """
    names = sorted(
        {
            name
            for place, other in facts.items()
            if place[0] == dataset and place in used
            for name in {*used[place], *other}
            if used[place].get(name) != other.get(name)
            and (name != PIXELS or name in {*used[place]} & {*other})
        }
    )
    if names:
        log.warning(
            "%s was tested on %s, too, but the results of %s count (they differ in %s).",
            run.folder,
            dataset,
            used_folder,
            ", ".join(names),
        )


def read_stamped_results(run: Run, record: Mapping[str, Any]) -> pl.DataFrame:
    """Reads results whose stamps are all explained in `run.json`.

    Raises:
        InputError: a stamp is missing, unknown or incomplete.
    """
    path = run.folder / "results.csv"
    table = read_results(path, ("n_real_videos",))
    check_one_content(table, path)
    if "stamp" not in table.columns or not record.get("stamps"):
        raise InputError(
            f"The results in {run.folder} have no protocol stamps",
            "test the run again with fmsd evaluate, or train it anew",
        )
    if unknown := set(table["stamp"]) - set(record["stamps"]):
        raise InputError(
            f"{run.folder} has results with the stamp {min(map(str, unknown))}, which its run.json "
            "does not explain",
            "test the run again",
        )
    required = {"dataset", "level", "manifest", "protocol", "naming", "video_score", "train"}
    if missing := sorted(required - set.intersection(*map(set, record["stamps"].values()))):
        raise InputError(
            f"{run.folder / 'run.json'} has a stamp without {missing[0]}", "test the run again"
        )
    return table


def check_one_content(table: pl.DataFrame, path: Path) -> None:
    """Refuses results that give several digests of the files of one dataset.

    Args:
        table: results of a test.
        path: their file.

    Raises:
        InputError: a dataset has several.
    """
    if PIXELS not in table.columns:
        return
    for dataset, count in table.group_by("dataset").agg(pl.col(PIXELS).n_unique()).rows():
        if count > 1:
            raise InputError(
                f"{path} has {count} values of {PIXELS} for {dataset}, whose rows are of one test",
                "put back the file, or test the run again with fmsd evaluate",
            )
