"""Tests in which a detector gives all frames the same score."""

import logging
from collections.abc import Sequence

import polars as pl

log = logging.getLogger(__name__)


def has_equal_scores(logit: pl.Series) -> bool:
    """Whether all logits of a test are equal, so that its AUC is 0.5."""
    return logit.min() == logit.max()


def warn_of_equal_scores(tests: Sequence[str]) -> None:
    """Warns of tests in which all frames have the same score, which an AUC of 0.5 alone would hide.

    Args:
        tests: what was tested; nothing is said if there are none.
    """
    if not tests:
        return
    others = len(tests) - 1
    log.warning(
        "All frames of %s%s have the same score, so the AUC is 0.5: look whether the images are "
        "all alike (fmsd doctor), and whether the training failed (logs/metrics.csv).",
        tests[0],
        f", and of {others} other test{'s' * (others > 1)}," if others else "",
    )
