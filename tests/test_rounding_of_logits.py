"""Logits are rounded to what the precision of the forward pass carries."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fmsd.data.frame import SCHEMA
from fmsd.data.manifest import Manifest
from fmsd.engine.predictions import (
    FLOAT32_STEP,
    LOW_PRECISION_STEP,
    round_logits,
    with_logits,
)
from fmsd.metrics.table import compute_results
from fmsd.metrics.video import aggregate_videos
from fmsd.types import Predictions
from tests.runs import frames

STEPS = {"32-true": FLOAT32_STEP, "64-true": FLOAT32_STEP, "bf16-mixed": LOW_PRECISION_STEP}


def drawn(count: int = 500, scale: float = 4.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, scale, count).astype(np.float32))


@pytest.mark.parametrize(("precision", "step"), STEPS.items())
def test_rounded_logits_are_near_multiples_of_the_step_in_the_same_order(
    precision: str, step: float
) -> None:
    logit = drawn()
    rounded = round_logits(logit, precision)
    assert (rounded - logit).abs().max() <= step / 2
    assert torch.equal(rounded / step, (rounded / step).round())
    assert torch.equal(round_logits(rounded, precision), rounded)
    assert (rounded[logit.argsort()].diff() >= 0).all()
    assert torch.equal(round_logits(-logit, precision), -rounded)


@pytest.mark.parametrize(("precision", "step"), STEPS.items())
@pytest.mark.parametrize("size", [0.0, 0.3, 7.0, 40.0])
def test_a_constant_with_the_errors_of_a_forward_pass_is_constant(
    precision: str, step: float, size: float
) -> None:
    # the middle between two multiples is the worst place for a rounding
    errors = drawn(scale=1.0).clamp(-1, 1) * step * max(1.0, size) / 4
    logit = size + step / 2 + errors
    assert logit.unique().numel() > 1
    assert round_logits(logit, precision).unique().numel() == 1


def test_the_last_bits_of_a_batch_are_ties_at_both_levels() -> None:
    table = frames("ff", (), 0).sort("video", "index").head(97)  # videos of unequal lengths
    manifest = Manifest(table.select(SCHEMA.names()).cast(SCHEMA), Path())
    logit = torch.full((len(manifest),), 0.1234567)
    logit[-5:] += 3e-7  # the last batch
    raw = table.with_columns(logit=pl.Series(logit.numpy()))
    assert set(compute_results(raw, "", metrics=["auc"])["value"]) != {0.5}
    row = torch.arange(len(manifest))
    scores = Predictions(row, logit, row)
    results = compute_results(with_logits(manifest, scores, "32-true"), "", metrics=["auc"])
    assert results["value"].to_list() == [0.5, 0.5]


def test_videos_of_one_image_tie_whatever_their_lengths() -> None:
    for score in np.random.default_rng(0).random(50):
        videos = [f"{length}" for length in range(1, 40) for _ in range(length)]
        table = pl.DataFrame({"video": videos, "label": 0, "score": score})
        for kind in ("mean", "median", "max", "top5"):
            assert aggregate_videos(table, kind)["score"].n_unique() == 1


def test_rounding_leaves_the_results_of_a_detector_as_they_are() -> None:
    table = frames("ff", (), 3)
    logit = torch.from_numpy(table["logit"].to_numpy(writable=True))
    rounded = round_logits(logit, "32-true")
    before, after = (roc_auc_score(table["label"], values) for values in (logit, rounded))
    assert after == pytest.approx(before, abs=1e-4)
