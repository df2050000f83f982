"""fmsd score: a detector of other code under our test protocol; its scores become a run."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.console import print_place, print_table
from fmsd.data.extraction.crops import Recipe
from fmsd.data.prepared_folder import crop_settings
from fmsd.engine.datamodule import DataModule
from fmsd.engine.external_run import claimed_run, fill_external_run, write_beside
from fmsd.engine.external_scores import logits_of_fake, rank_datasets
from fmsd.engine.scoring import check_expected
from fmsd.errors import InputError
from fmsd.inference.external_detector import Declaration, ExternalDetector
from fmsd.inference.external_scoring import CarefulScorer, checked_scores, score_frames
from fmsd.metrics.coverage import COUNTS
from fmsd.quoting import shell_override
from fmsd.report.terminal import cost_line, print_auc_table
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)


def score(
    detector: ExternalDetector,
    data: DataModule,
    folder: Path,
    about: Mapping[str, Any],
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    label: str | None = None,
    coverage: str | None = None,
    seed: int = 0,
) -> Run:
    """Scores the test datasets with a detector of other code; writes the folder of a run.

    Args:
        detector: ready to score.
        data: its test datasets are scored.
        folder: of the run; it must hold none.
        about: where the detector is from: `detector`, `sha256` and `files`.
        config: text of the run's configuration.
        command: the command line.
        overrides: of the command line.
        label: the name of the row in reports; None for the detector's name.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.
        seed: with which it was made.

    Raises:
        InputError: the folder holds a run, the data cannot be used, or too few frames have a score.
        DetectorError: the detector scores no frame.
    """
    start = time.monotonic()
    declared = detector.declared
    external = {"kind": "detector", **about, **declared.facts()}
    scorer = CarefulScorer(detector)
    with claimed_run(folder, config) as run:
        data.load("tests")
        check_expected(data, coverage)
        warn_of_other_margins(data, declared.margin)
        found = {
            name: score_frames(scorer, manifest, declared.size, data.batch_size, data.workers)
            for name, manifest in data.tests.items()
        }
        scorer.check()
        checked = checked_scores(found, declared.scale)
        scores = logits_of_fake(checked, declared.scale, declared.higher)
        cost = {"seconds": round(time.monotonic() - start, 1), **detector.cost()}
        with keeping_scores(data, checked, declared, folder):
            table = fill_external_run(
                run,
                data,
                scores,
                external,
                command,
                label,
                overrides=overrides,
                coverage=coverage,
                cost=cost,
                seed=seed,
            )
    record = run.record()
    print_outcomes(table)
    warn_of_inversion(scores, data, coverage)
    print_auc_table(table, f"AUC of {label or about['detector']}", cost_line(record))
    print_place(f"The scores lie in {folder}", folder)
    return run


def warn_of_other_margins(data: DataModule, margin: float | None) -> None:
    """Warns of test datasets whose face crops have another margin than the detector was made for.

    Args:
        margin: as the detector declares it; None if unknown.
    """
    for name, manifest in data.tests.items():
        crops = crop_settings(manifest.root)
        cut = None if crops is None else crops.get("margin", Recipe().margin)
        if margin is not None and cut is not None and cut != margin:
            log.warning(
                "The faces of %s were cropped with a margin of %s, and the detector was made for "
                "%s: extract them with fmsd extract margin=%s, or its scores mean little.",
                name,
                cut,
                margin,
                margin,
            )


@contextlib.contextmanager
def keeping_scores(
    data: DataModule, scores: Mapping[str, pl.DataFrame], declared: Declaration, folder: Path
) -> Iterator[None]:
    """If the block refuses the scores, writes them beside the run, as `fmsd import` takes them.

    They took a pass over all images, and a refusal may ask for another `coverage=` only.

    Args:
        scores: from `checked_scores`.

    Raises:
        InputError: that of the block, with the place of the scores.
    """
    try:
        yield
    except InputError as error:
        lists = [
            table.select(
                pl.lit(name).alias("dataset"),
                data.tests[name].table["path"],
                pl.coalesce(pl.col("score").cast(pl.String), "outcome").alias("score"),
            )
            for name, table in scores.items()
        ]
        path = write_beside(folder, "scores", pl.concat(lists))
        raise InputError(
            error.message,
            f"{error.remedy}; the scores are kept in {path}: fmsd import takes them with "
            f"{shell_override('scores', path)} scale={declared.scale} higher={declared.higher} and "
            "this data",
        ) from error


def warn_of_inversion(
    scores: Mapping[str, pl.DataFrame], data: DataModule, coverage: str | None
) -> None:
    """Warns of datasets on which the whole interval of the AUC over videos lies below 0.5."""
    rankings = rank_datasets(scores, data, coverage)
    inverted = [f"{each} on {name}" for name, each in rankings.items() if each.is_inverted]
    if inverted:
        log.warning(
            "The detector ranks fakes below reals (video AUC %s): if a high output of it means "
            "real, declare higher=real.",
            ", ".join(inverted),
        )


def print_outcomes(table: pl.DataFrame) -> None:
    """Prints how many frames of each dataset have a score, and what became of the others.

    Args:
        table: results.
    """
    frames = table.filter(level="frame").unique("dataset", keep="first", maintain_order=True)
    counts = frames.select("dataset", *COUNTS)
    print_table(
        "Frames by outcome",
        ["", *(name.removeprefix("n_").replace("_", " ") for name in COUNTS)],
        [[row[0], *(f"{count:,}" for count in row[1:])] for row in counts.rows()],
        text_columns=("",),
        name="outcomes",
        records=counts.to_dicts(),
    )
