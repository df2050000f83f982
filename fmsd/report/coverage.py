"""How much of a test set has a score, beside the values of a report."""

import logging
import math
from collections.abc import Mapping, Sequence

import polars as pl

from fmsd.metrics.coverage import SCORED
from fmsd.metrics.table import LEVELS
from fmsd.metrics.video import group_by_folder

log = logging.getLogger(__name__)

ALL = pl.lit(SCORED)
"""The outcome where every frame has a score."""


def scored_shares(
    shown: pl.DataFrame, means: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], float]:
    """The share of frames or videos with a score where some have none, by run and column.

    That of a mean is over all of its datasets. Results of earlier versions do not count them: they
    have no share.

    Args:
        shown: the results of one metric at one level, with the label in the column `run`.
        means: columns of means, with their datasets.
    """
    if not {"n_expected", "n_scored"} <= {*shown.columns}:
        return {}
    known = shown.drop_nulls(["n_expected", "n_scored"])
    parts = [known.select("run", "dataset", "n_expected", "n_scored")] + [
        known.filter(pl.col("dataset").is_in(list(datasets))).select(
            "run", pl.lit(name).alias("dataset"), "n_expected", "n_scored"
        )
        for name, datasets in means.items()
    ]
    totals = pl.concat(parts).group_by("run", "dataset").sum()
    return {
        (run, column): scored / expected
        for run, column, expected, scored in totals.iter_rows()
        if scored < expected
    }


def group_coverage(
    expected: pl.DataFrame, column: str, naming: str, level: str = "video"
) -> dict[tuple[str | None, int], tuple[int, int]]:
    """The numbers of expected and of scored videos, by group and label; the group None is all.

    Args:
        expected: the predictions on a dataset, a row per expected frame.
        column: divides the videos into groups.
        naming: see `fmsd.metrics.table.compute_results`.
        level: `video`, or `frame` to count frames.
    """
    scored = (
        pl.lit(value=True) if "outcome" not in expected.columns else pl.col("outcome") == SCORED
    )
    frames = expected.with_columns(scored=scored)
    if naming == "folder":
        frames = group_by_folder(frames)
    counts: dict[tuple[str | None, int], tuple[int, int]] = {}
    for group in (pl.lit(None, pl.String), pl.col(column)):
        items = frames.select(group.alias("group"), "label", "video", "scored")
        if level == "video":
            items = items.group_by("group", "label", "video").agg(pl.col("scored").any())
        table = items.group_by("group", "label").agg(pl.len(), pl.col("scored").sum())
        counts |= {(name, label): (count, own) for name, label, count, own in table.iter_rows()}
    return counts


def with_forgery_coverage(
    results: pl.DataFrame, expected: pl.DataFrame, naming: str
) -> pl.DataFrame:
    """Adds `n_expected` and `n_scored`: the fakes of a forgery and all real ones, by level.

    Args:
        results: see `fmsd.metrics.table.results_by_domain`.
        expected, naming: see `group_coverage`.
    """
    if results.is_empty():  # the metrics do not exist for these scores
        return results.with_columns(n_expected=None, n_scored=None)
    lines = []
    for level in LEVELS:
        counts = group_coverage(expected, "domain", naming, level)
        reals = counts.get((None, 0), (0, 0))
        for (domain, label), fakes in counts.items():
            if label == 1 and domain is not None:
                lines.append((domain, level, fakes[0] + reals[0], fakes[1] + reals[1]))
                if level == "video" and not fakes[1]:
                    log.warning("No fake of %s, %s has a score.", expected["dataset"][0], domain)
    schema = {"domain": pl.String, "level": pl.String, "n_expected": pl.Int64, "n_scored": pl.Int64}
    known = pl.DataFrame(lines, schema=schema, orient="row")
    return results.join(known, on=["domain", "level"], how="left", maintain_order="left")


def scored_phrase(share: float | None) -> str:
    """A share below 1 as text, `98.2 % scored`, rounded down: what is not whole is never 100 %."""
    return "" if share is None else f"{math.floor(1000 * share + 1e-9) / 10:.1f} % scored"
