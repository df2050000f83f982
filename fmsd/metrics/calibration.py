"""Whether a probability of fake means what it says. Pure functions of whole-set scores."""

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS = 15
"""Into how many bins of equal width Guo et al. sort probabilities."""


def brier(score: Float[Tensor, " items"], label: Int[Tensor, " items"]) -> float:
    """The mean squared distance of the probability of fake from the label (G. W. Brier, Verification of forecasts, 1950); 0.25 says nothing."""
    return float((score.double() - label).square().mean())


def expected_calibration_error(
    score: Float[Tensor, " items"], label: Int[Tensor, " items"], bins: int = BINS
) -> float:
    """ECE: how far the mean probability of fake in a bin lies from the share of fakes in it, averaged over the items.

    C. Guo, G. Pleiss, Y. Sun and K. Weinberger, On Calibration of Modern Neural Networks, 2017,
    arXiv:1706.04599, in the binary reading: what is binned is the probability of fake in [0, 1],
    not that of the likelier class in [0.5, 1].
    """
    table = reliability(score, label, bins)
    return float((table["count"] * (table["score"] - table["fakes"]).abs()).sum() / len(score))


def reliability(
    score: Float[Tensor, " items"], label: Int[Tensor, " items"], bins: int = BINS
) -> pl.DataFrame:
    """The reliability diagram: for each bin [low, high) its mean score, its share of fakes (both null where it is empty) and its count of items.

    The last bin holds 1, too.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy()
    items = pl.DataFrame(
        {
            "bin": bin_indices(score, bins).numpy(),
            "score": score.double().numpy(),
            "label": label.numpy(),
        }
    )
    found = items.group_by("bin").agg(
        pl.col("score").mean(), fakes=pl.col("label").mean(), count=pl.len()
    )
    table = pl.DataFrame({"bin": range(bins), "low": edges[:-1], "high": edges[1:]}).join(
        found, on="bin", how="left", maintain_order="left"
    )
    return table.select("low", "high", "score", "fakes", pl.col("count").fill_null(0))


def bin_indices(score: Float[Tensor, " items"], bins: int = BINS) -> Int[Tensor, " items"]:
    """The bin of each probability, from 0 on."""
    return torch.bucketize(
        score.double(), torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1], right=True
    )
