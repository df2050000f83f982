"""Coverage: which expected frames have a score, and what is done about those that have none.

Predictions have a row per expected frame. Where some have no score, a column `outcome` says of each
row why, and `logit` is null. A video of which there is no frame at all (no face was found in it, or
its file could not be read) has one row with the index -1, and so counts as one frame.

A video is scored if one of its frames is; its score is computed from these frames alone. Any other
video has the first outcome, in the order of `OUTCOMES`, that one of its frames has.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from fmsd.checks import check_choice
from fmsd.errors import InputError
from fmsd.outcomes import NO_FRAME, OUTCOMES, SCORED

EXCLUDE, AS_REAL, AS_CHANCE, REFUSE = POLICIES = ("exclude", "as_real", "as_chance", "refuse")
"""Values of `coverage=`: frames without a score are left out, are scored as certainly real or with
a probability of 0.5, or are refused."""

COUNTS = ("n_expected", *(f"n_{outcome}" for outcome in OUTCOMES))
"""Columns of results: the number of expected frames or videos, and of those with each outcome."""

LEAST_SHARE = 0.99
"""The least scored share of each class of a dataset, where `coverage=` was not given."""

FILLED = {AS_REAL: -1000.0, AS_CHANCE: 0.0}
"""The logits of frames without a score: the probability is exactly 0 in float64, or 0.5."""


class CoverageError(InputError):
    """Too few frames or videos of a test have a score."""


def check_coverage(coverage: str | None) -> None:
    """Checks the value of `coverage=`; None excludes, and refuses below `LEAST_SHARE`."""
    if coverage is not None:
        check_choice("coverage", coverage, POLICIES)


def policy(facts: Mapping[str, Any]) -> str:
    """The policy of a test by the facts of its stamp; without one every frame has a score."""
    return facts.get("coverage", EXCLUDE)


def framed(predictions: pl.DataFrame) -> pl.DataFrame:
    """The rows of frames, without those of videos of which there is no frame."""
    if "outcome" not in predictions.columns:
        return predictions
    return predictions.filter(pl.col("index") != NO_FRAME)


def is_complete(predictions: pl.DataFrame) -> bool:
    """Whether every expected frame has a score."""
    return "outcome" not in predictions.columns or bool((predictions["outcome"] == SCORED).all())


def cover(predictions: pl.DataFrame, coverage: str | None = EXCLUDE) -> pl.DataFrame:
    """The frames that are ranked, each with a logit.

    Args:
        predictions: a row per expected frame, of one or several datasets; with a column `outcome`
            where not every frame has a score. Without one they are returned as they are.
        coverage: a policy; None excludes, and refuses below `LEAST_SHARE`.

    Returns:
        The frames without `outcome`. Where frames without a score are given one, a column `filled`
        tells them apart: they count for their video only if it has no others, see
        `fmsd.metrics.video.aggregate_videos`.

    Raises:
        InputError: frames have no score, which the policy refuses.
    """
    check_coverage(coverage)
    if "outcome" not in predictions.columns:
        return predictions
    check_share(predictions, coverage)
    scored = pl.col("outcome") == SCORED
    if coverage not in FILLED:
        return predictions.filter(scored).drop("outcome")
    logit = pl.when(scored).then("logit").otherwise(pl.lit(FILLED[coverage]))
    return predictions.with_columns(
        logit.cast(predictions.schema["logit"]).alias("logit"), filled=~scored
    ).drop("outcome")


def check_share(predictions: pl.DataFrame, coverage: str | None) -> None:
    """Refuses datasets of which too few frames or videos have a score.

    With `coverage=refuse` all must have one; without `coverage=`, 99 % of each class; with
    `exclude`, one of each class.

    Raises:
        CoverageError: fewer have one; the message names the dataset, the class and the outcomes.
    """
    if coverage in FILLED or is_complete(predictions):
        return
    least = {None: LEAST_SHARE, REFUSE: 1.0}.get(coverage, 0.0)
    columns = ("dataset", "label", "video", "outcome")
    parts = predictions.select(columns).group_by("dataset", "label", maintain_order=True)
    for (dataset, label), frames in parts:
        for kind, outcome in (
            ("videos", video_outcomes(frames)["outcome"]),
            ("frames", frames["outcome"]),
        ):
            counts = count_outcomes(outcome)
            expected, scored = counts["n_expected"], counts["n_scored"]
            if scored and scored >= least * expected:
                continue
            others = "as_real or as_chance" if not scored else "exclude, as_real or as_chance"
            raise CoverageError(
                f"Only {scored:,} of the {expected:,} {'fake' if label else 'real'} test {kind} of "
                f"{dataset} have a score (the others: {outcomes_text(counts)})",
                f"complete them, or choose what becomes of them by coverage={others}",
            )


def outcomes_text(counts: Mapping[str, Any]) -> str:
    """The outcomes other than scored with their counts: `3 no face, 1 failed`."""
    return ", ".join(
        f"{counts[f'n_{outcome}']:,} {outcome.replace('_', ' ')}"
        for outcome in OUTCOMES[1:]
        if counts[f"n_{outcome}"]
    )


def coverage_text(counts: Mapping[str, Any]) -> str:
    """How many of the expected frames or videos have a score: `98 of 100 scored, 2 no face`."""
    return f"{counts['n_scored']:,} of {counts['n_expected']:,} scored, {outcomes_text(counts)}"


def video_outcomes(predictions: pl.DataFrame) -> pl.DataFrame:
    """One row per video with its `outcome`: the first of `OUTCOMES` that one of its frames has.

    Args:
        predictions: columns video and outcome.
    """
    rank = pl.col("outcome").replace_strict({name: i for i, name in enumerate(OUTCOMES)})
    first = predictions.group_by("video", maintain_order=True).agg(rank.min().alias("outcome"))
    return first.with_columns(pl.col("outcome").replace_strict(dict(enumerate(OUTCOMES))))


def count_outcomes(outcome: pl.Series) -> dict[str, int]:
    """The number of expected frames or videos and of each outcome, by the names in `COUNTS`."""
    known = dict(outcome.value_counts().rows())
    return {"n_expected": len(outcome)} | {f"n_{name}": known.get(name, 0) for name in OUTCOMES}


def complete_counts(number: int) -> dict[str, int]:
    """The same where all have a score."""
    return dict.fromkeys(COUNTS, 0) | {"n_expected": number, f"n_{SCORED}": number}


def counts_by_level(predictions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """The counts of one dataset's outcomes at frame and at video level.

    Args:
        predictions: with an outcome, and the ids by which frames are grouped into videos.
    """
    return {
        "frame": count_outcomes(predictions["outcome"]),
        "video": count_outcomes(video_outcomes(predictions)["outcome"]),
    }
