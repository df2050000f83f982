"""How much of a test set has a score, beside the values of a report."""

import math
from collections.abc import Mapping, Sequence

import polars as pl


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


def scored_phrase(share: float | None) -> str:
    """A share below 1 as text, `98.2 % scored`, rounded down: what is not whole is never 100 %."""
    return "" if share is None else f"{math.floor(1000 * share + 1e-9) / 10:.1f} % scored"
