"""fmsd import scores=FILE: the scores of another program become a run under our test protocol."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.console import print_place, print_table
from fmsd.data.score_files import ScoreFile, read_scores
from fmsd.data.score_keys import AUTO
from fmsd.data.score_matching import Matching, match_scores
from fmsd.engine.datamodule import DataModule
from fmsd.engine.external_run import claimed_run, fill_external_run, write_beside
from fmsd.engine.external_scores import check_polarity, logits_of_fake
from fmsd.errors import InputError
from fmsd.metrics.coverage import CoverageError, count_outcomes
from fmsd.metrics.score_scale import Higher, Scale
from fmsd.outcomes import OUTCOMES
from fmsd.paths import file_digest
from fmsd.quoting import printable
from fmsd.report.terminal import cost_line, print_auc_table
from fmsd.runs.folder import DISAGREEMENTS, MISSING, UNMATCHED, Run
from fmsd.tables import FORMULA

log = logging.getLogger(__name__)

SHOWN = 5
"""Rows without a frame, and frames without a score, that are printed of each."""


@dataclass(frozen=True)
class ScoreSettings:
    """What a user says of a file of scores.

    Args:
        scale: `probability`, `logit` or `score`, see `fmsd.metrics.score_scale.Scale`.
        higher: what a higher score means, `fake` or `real`; None for fake, which is then checked.
        columns: the names of its columns, see `fmsd.data.score_files.read_scores`.
        level, by, root: see `fmsd.data.score_matching.match_scores`.
        size: side of the detector's input in pixels; None where it is not known.
        labels: `check`, which refuses a file with other labels than ours, or `ours`, which lists
            them.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.
    """

    scale: Scale = "probability"
    higher: Higher | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    level: str = AUTO
    by: str = AUTO
    root: str | None = None
    size: int | None = None
    labels: str = "check"
    coverage: str | None = None


def import_scores(
    path: Path,
    data: DataModule,
    folder: Path,
    settings: ScoreSettings,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    label: str | None = None,
    seed: int = 0,
) -> Run:
    """Writes the folder of a run with the scores of a file: all at once, or nothing.

    Args:
        path: the file.
        data: its test datasets are those that the scores are of.
        folder: of the run; it must hold none.
        config: text of the run's configuration.
        command: the command line.
        overrides: of the command line.
        label: the name of the row in reports; None for that of the file.
        seed: of the training whose scores they are.

    Raises:
        InputError: the file cannot be read, its keys or scores are not certain, it has other labels
            than ours, it seems to be inverted, or too few frames have a score.
    """
    with claimed_run(folder, config) as run:
        digest = file_digest(path) if path.is_file() else ""
        file = read_scores(path, settings.columns)
        check_scale(file, settings.scale, path)
        data.load("tests")
        matching = match_scores(file, data.tests, path, settings.level, settings.by, settings.root)
        check_labels(matching, settings.labels, path, file.unit)
        print_matching(file, matching, path)
        scores = logits_of_fake(matching.scores, settings.scale, settings.higher or "fake")
        with listing_missing(matching, folder):
            check_polarity(scores, data, settings.higher, settings.coverage, path)
            write_lists(run, matching, file.unit)
            if file_digest(path) != digest:
                raise InputError(f"{path} was changed while it was read", "import it again")
            table = fill_external_run(
                run,
                data,
                scores,
                external_facts(path, digest, file, matching, settings),
                command,
                label,
                levels=("video",) if matching.reading.level == "video" else ("frame", "video"),
                overrides=overrides,
                coverage=settings.coverage,
                seed=seed,
            )
    print_auc_table(table, f"AUC of {label or printable(path.name)}", cost_line(run.record()))
    print_place(f"The imported scores lie in {folder}", folder)
    return run


@contextlib.contextmanager
def listing_missing(matching: Matching, folder: Path) -> Iterator[None]:
    """If the block refuses the coverage, lists the frames without a score beside the run.

    Raises:
        InputError: that of the block, with the place of the list.
    """
    try:
        yield
    except CoverageError as error:
        what = f"{matching.reading.level}s"
        if matching.missing.is_empty():  # of videos of which there is no frame alone
            raise
        path = write_beside(folder, "missing", with_plain_keys(matching.missing))
        raise InputError(
            error.message, f"{error.remedy}; {path} lists the {what} without a score"
        ) from error


def check_scale(file: ScoreFile, scale: str, path: Path) -> None:
    """Checks that probabilities are some.

    Raises:
        InputError: a score below 0 or above 1.
    """
    if scale != "probability":
        return
    outside = file.table.filter(~pl.col("score").is_between(0, 1))
    if outside.is_empty():
        return
    low, high = file.table["score"].min(), file.table["score"].max()
    place, score = outside.row(0, named=True)["place"], outside["score"][0]
    raise InputError(
        f"The scores of {path} are no probabilities: they go from {low:.6g} to {high:.6g} "
        f"({file.unit} {place} has {score})",
        "give scale=logit for the logits of probabilities, or scale=score for any other scale",
    )


def check_labels(matching: Matching, labels: str, path: Path, unit: str) -> None:
    """Checks that the labels of a file, where it has some, are ours.

    Raises:
        InputError: they differ, and `labels` is not `ours`.
    """
    count = len(matching.disagreements)
    if not count:
        return
    first = matching.disagreements.row(0, named=True)
    names = ("real", "fake")
    what = (
        f"{count:,} of the {matching.labels:,} labels in {path} differ from those of the data "
        f"(first: {unit} {first['place']} calls {printable(first['key'])} "
        f"{names[first['label']]}, the data {names[first['ours']]})"
    )
    if labels == "ours":
        log.warning("%s. Those of the data hold; %s lists all.", what, DISAGREEMENTS)
        return
    opposite = "the file may call fakes 0: " if count == matching.labels else ""
    raise InputError(
        what, f"{opposite}correct them, or give labels=ours to keep those of the data and list all"
    )


def external_facts(
    path: Path, digest: str, file: ScoreFile, matching: Matching, settings: ScoreSettings
) -> dict[str, Any]:
    """What `run.json` says of the file."""
    values = pl.concat(table["score"] for table in matching.scores.values())
    return {
        "kind": "scores",
        "file": printable(path.name),
        "sha256": digest,
        "scale": settings.scale,
        "higher": settings.higher or "fake",
        "size": settings.size,
        "columns": dict(file.columns),
        "keys": str(matching.reading),
        "lowest": values.min(),
        "highest": values.max(),
        "rows": len(file.table),
        "duplicates": matching.duplicates,
        "unmatched": len(matching.unmatched),
        "missing": len(matching.missing),
        "disagreements": len(matching.disagreements),
    }


def write_lists(run: Run, matching: Matching, unit: str) -> None:
    """Writes what was left over into the run; no file where there is nothing."""
    lists = {
        UNMATCHED: matching.unmatched.rename({"place": unit}),
        MISSING: matching.missing,
        DISAGREEMENTS: matching.disagreements.rename({"place": unit}),
    }
    for name, table in lists.items():
        if len(table):
            run.write(name, with_plain_keys(table).write_csv())


def with_plain_keys(table: pl.DataFrame) -> pl.DataFrame:
    """A list whose keys no spreadsheet takes for formulas."""
    formula = pl.col("key").str.contains(f"^{FORMULA.pattern}")
    return table.with_columns(key=pl.when(formula).then("'" + pl.col("key")).otherwise("key"))


def print_matching(file: ScoreFile, matching: Matching, path: Path) -> None:
    """Prints how the rows of a file and the frames of the tests fit together."""
    level, counted = matching.reading.level, dict[str, dict[str, int]]()
    for name, table in matching.scores.items():
        counted[name] = count_outcomes(table["outcome"])
    facts = {
        "rows": f"{len(file.table):,}",
        "keys": str(matching.reading),
        "rows without a test frame": f"{len(matching.unmatched):,}{_first(matching.unmatched)}",
        f"{level}s without a score": f"{len(matching.missing):,}{_first(matching.missing)}",
        "repeated rows": f"{matching.duplicates:,}",
        "labels compared": f"{matching.labels:,}" if matching.labels else "none",
    }
    for role, column in file.columns.items():
        facts[f"column of the {role}"] = printable(column)
    print_table(
        f"Scores of {printable(path.name)}",
        ["", ""],
        [[name, text] for name, text in facts.items()],
        text_columns=("",),
        name="scores",
        records=[
            {
                "file": path.name,
                "rows": len(file.table),
                "keys": str(matching.reading),
                "level": level,
                "unmatched": len(matching.unmatched),
                "missing": len(matching.missing),
                "duplicates": matching.duplicates,
                "disagreements": len(matching.disagreements),
            }
        ],
    )
    print_table(
        "Frames by outcome",
        ["", "expected", *(outcome.replace("_", " ") for outcome in OUTCOMES)],
        [[name, *(f"{count:,}" for count in row.values())] for name, row in counted.items()],
        name="outcomes",
        records=[{"dataset": name, **row} for name, row in counted.items()],
    )


def _first(rows: pl.DataFrame) -> str:
    """The first keys of a list, each on a line."""
    keys = rows["key"].head(SHOWN).to_list()
    lines = [text if len(text := printable(key)) <= 80 else f"{text[:77]}..." for key in keys]
    lines += ["..."] if len(rows) > SHOWN else []
    return "".join(f"\n{line}" for line in lines)
