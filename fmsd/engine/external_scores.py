"""Scores of external detectors as logits, and whether they rank fakes above reals."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.metrics.coverage import check_share
from fmsd.metrics.polarity import Ranking, rank_videos
from fmsd.metrics.score_scale import Higher, Scale, as_logits, count_crowded, count_ties
from fmsd.outcomes import SCORED

log = logging.getLogger(__name__)

CROWDED = 0.01
"""The share of different scores from which on a warning says that they are too close together."""


def logits_of_fake(
    found: Mapping[str, pl.DataFrame], scale: Scale, higher: Higher
) -> dict[str, pl.DataFrame]:
    """The scores of all test datasets as logits of fake, for `fill_external_run`.

    Args:
        found: by dataset, the `score` (Float64, null without one) and the `outcome` of each test
            frame, and further columns, which are kept.
        scale, higher: see `fmsd.metrics.score_scale.as_logits`.
    """
    values = pl.concat(table["score"] for table in found.values()).fill_null(math.nan).to_numpy()
    logits = as_logits(values, scale, higher)
    warn_of_ties(values, logits, scale)
    parts = np.split(logits, np.cumsum([len(table) for table in found.values()])[:-1])
    return {
        name: table.drop("score").with_columns(pl.Series("logit", part, nan_to_null=True))
        for (name, table), part in zip(found.items(), parts, strict=True)
    }


def warn_of_ties(values: np.ndarray, logits: np.ndarray, scale: Scale) -> None:
    """Warns of different scores that tie as probabilities, or whose distances are lost.

    Args:
        values: the scores, NaN without one.
        logits: of the same.
    """
    different, tied = count_ties(values, logits)
    if tied:
        log.warning(
            "Of the %s different scores %s tie: their probabilities are equal in float64, as those "
            "of all logits above 36.8 are; scale=score keeps their order.",
            f"{different:,}",
            f"{tied:,}",
        )
    elif scale == "score" and (crowded := count_crowded(values)) > CROWDED * different:
        low, high = np.nanmin(values), np.nanmax(values)
        log.warning(
            "%s of the %s different scores lie so close together in the range from %g to %g that "
            "their distances are lost: frames are ranked by them exactly, videos by their order. "
            "If %g or %g stands for a failure, put 'failed' or NaN in its place.",
            f"{crowded:,}",
            f"{different:,}",
            *(low, high, low, high),
        )


def check_polarity(
    scores: Mapping[str, pl.DataFrame],
    data: DataModule,
    higher: Higher | None,
    coverage: str | None,
    path: Path,
) -> None:
    """Checks that fakes do not rank below reals, unless the user says that they do.

    Args:
        scores: from `logits_of_fake`.
        higher: what the user says that a higher score means; None for nothing.
        coverage: see `fmsd.metrics.coverage.cover`.
        path: the file, for messages.

    Raises:
        InputError: the whole interval of the AUC over videos lies below 0.5 on a dataset, and
            `higher` is None; or too few frames have a score.
    """
    rankings = rank_datasets(scores, data, coverage)
    inverted = {name: each for name, each in rankings.items() if each.is_inverted}
    certain = [name for name, each in rankings.items() if each.interval is not None]
    below = {name: each for name, each in rankings.items() if each.auc < 0.5}
    found = ", ".join(f"{each} on {name}" for name, each in (inverted or below).items())
    if inverted and higher is None:
        raise InputError(
            f"The scores of {path} rank fakes below reals (video AUC {found})",
            "give higher=real if a high score means real there, or higher=fake to keep them",
        )
    if inverted:
        log.warning("The scores rank fakes below reals: video AUC %s.", found)
    elif below and not certain:
        log.warning(
            "The scores rank fakes below reals (video AUC %s), on too few videos for an interval; "
            "give higher=real if a high score means real.",
            found,
        )


def rank_datasets(
    scores: Mapping[str, pl.DataFrame], data: DataModule, coverage: str | None
) -> dict[str, Ranking]:
    """The ranking of the scored videos of each dataset; none of one with a single class of them.

    Raises:
        InputError: too few frames have a score, see `fmsd.metrics.coverage.check_share`.
    """
    rankings, selection = dict[str, Ranking](), data.selection
    for name, manifest in data.tests.items():
        frames = manifest.table.with_columns(scores[name]["logit"], scores[name]["outcome"])
        check_share(frames, coverage)
        scored = frames.filter(outcome=SCORED).drop("outcome")
        if scored["label"].n_unique() == 2:
            rankings[name] = rank_videos(scored, selection.naming, selection.video_score)
    return rankings
