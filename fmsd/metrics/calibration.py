"""Calibration metrics, as pure functions of the scores of a whole set."""

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS = 15
"""Number of bins of equal width, as in Guo et al."""


def brier(score: Float[Tensor, " items"], label: Int[Tensor, " items"]) -> float:
    """Brier score: the mean squared error of the probability of fake; 0.25 for a constant 0.5.

    G. W. Brier, Verification of forecasts, 1950.
    """
    return float((score.double() - label).square().mean())


def expected_calibration_error(
    score: Float[Tensor, " items"], label: Int[Tensor, " items"], bins: int = BINS
) -> float:
    """ECE: the gap between mean probability and share of fakes in a bin, averaged over items.

    C. Guo, G. Pleiss, Y. Sun and K. Weinberger, On Calibration of Modern Neural Networks, 2017,
    arXiv:1706.04599, in the binary form: the bins are of the probability of fake in [0, 1], not of
    that of the likelier class in [0.5, 1].
    """
    gaps = score.new_zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, bin_indices(score, bins), score.double() - label)
    return float(gaps.abs().sum() / len(score))


def reliability(
    score: Float[Tensor, " items"], label: Int[Tensor, " items"], bins: int = BINS
) -> pl.DataFrame:
    """The reliability diagram: bins [low, high) with mean score, share of fakes and item count.

    Score and share are null in an empty bin. The last bin includes 1.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy()
    items = pl.DataFrame(
        {
            "bin": bin_indices(score, bins).numpy(),
            "score": score.double().numpy(),
            "label": label.numpy(),
        }
    )
    filled = items.group_by("bin").agg(
        pl.col("score").mean(), fakes=pl.col("label").mean(), count=pl.len()
    )
    table = pl.DataFrame({"bin": range(bins), "low": edges[:-1], "high": edges[1:]}).join(
        filled, on="bin", how="left", maintain_order="left"
    )
    return table.select("low", "high", "score", "fakes", pl.col("count").fill_null(0))


def bin_indices(score: Float[Tensor, " items"], bins: int = BINS) -> Int[Tensor, " items"]:
    """The index of each probability's bin."""
    return torch.bucketize(
        score.double(), torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1], right=True
    )
