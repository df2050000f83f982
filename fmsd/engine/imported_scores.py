"""Imported scores as logits, and whether they rank fakes above reals."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from fmsd.engine.datamodule import DataModule
from fmsd.errors import InputError
from fmsd.metrics.coverage import SCORED, check_share
from fmsd.metrics.polarity import Ranking, rank_videos
from fmsd.metrics.score_scale import Higher, Scale, as_logits, score_bounds

log = logging.getLogger(__name__)


def as_test_scores(
    found: Mapping[str, pl.DataFrame], scale: Scale, higher: Higher
) -> dict[str, pl.DataFrame]:
    """The scores of all test datasets as logits of fake, for `fill_external_run`.

    There are no digests of files: which files were scored is not known.

    Args:
        found: by dataset, the `score` (null without one) and `outcome` of each test frame.
        scale, higher: see `fmsd.metrics.score_scale.as_logits`.
    """
    values = {
        name: table["score"].fill_null(float("nan")).to_numpy() for name, table in found.items()
    }
    bounds = score_bounds(list(values.values())) if scale == "score" else None
    logits = {name: as_logits(value, scale, higher, bounds) for name, value in values.items()}
    warn_of_ties(np.concatenate([*values.values()]), np.concatenate([*logits.values()]))
    return {
        name: table.select(
            pl.Series("logit", logits[name], nan_to_null=True),
            "outcome",
            pl.lit(None).alias("content"),
        )
        for name, table in found.items()
    }


def warn_of_ties(values: np.ndarray, logits: np.ndarray) -> None:
    """Warns of different scores whose probabilities are equal in float64, and so tie.

    Args:
        values: the scores, NaN without one.
        logits: of the same.
    """
    scored = ~np.isnan(values)
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-logits[scored]))
    before, after = len(np.unique(values[scored])), len(np.unique(probabilities))
    if after < before:
        log.warning(
            "Of the %d different scores %d cannot be told apart as probabilities in float64, and "
            "tie; scale=score keeps the order of logits above 36.",
            before,
            before - after,
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
        scores: from `as_test_scores`.
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
