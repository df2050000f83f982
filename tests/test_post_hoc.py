"""Post-hoc calibration against scikit-learn and its own laws."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from fmsd.metrics import post_hoc
from fmsd.metrics.post_hoc import (
    FITS,
    calibrate,
    fit_calibration,
    log_loss,
    logits,
    smoothed_targets,
)
from fmsd.metrics.ranking import auc
from fmsd.metrics.score_meaning import Calibration


def draw(
    videos: int = 60, frames: int = 4, slope: float = 1.0, offset: float = 0.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores whose true logit is `slope` times theirs plus `offset`, labels and videos."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(videos) % 2
    # two normal distributions at -1 and 1 of variance 1 have the true logit 2 x
    place = (2.0 * label - 1).repeat_interleave(frames).double()
    x = place + torch.randn(len(place), generator=generator, dtype=torch.float64)
    score = torch.sigmoid((2 * x - offset) / slope)
    return score, label.repeat_interleave(frames), torch.arange(videos).repeat_interleave(frames)


@pytest.mark.parametrize("slope", [0.3, 1.0, 4.0])
def test_temperature_scaling_recovers_the_temperature(slope: float) -> None:
    score, label, _ = draw(videos=4000, slope=slope)
    fitted = FITS["temperature"](logits(score), label)
    assert fitted.slope == pytest.approx(slope, rel=0.05)
    assert fitted.offset == 0


def test_platt_scaling_recovers_slope_and_offset() -> None:
    score, label, _ = draw(videos=4000, slope=2.0, offset=1.5)
    fitted = FITS["platt"](logits(score), label)
    assert (fitted.slope, fitted.offset) == pytest.approx((2.0, 1.5), rel=0.1)


def test_platt_scaling_equals_logistic_regression_on_both_targets() -> None:
    """A target of .9 is nine tenths of a fake and one tenth of a real item."""
    score, label, _ = draw(videos=31, slope=0.5, offset=-1)
    logit = logits(score)
    target, weight = smoothed_targets(label)
    oracle = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000).fit(
        torch.cat([logit, logit])[:, None].numpy(),
        np.repeat([1, 0], len(logit)),
        sample_weight=torch.cat([weight * target, weight * (1 - target)]).numpy(),
    )
    fitted = FITS["platt"](logit, label)
    assert fitted.slope == pytest.approx(float(oracle.coef_[0, 0]), rel=1e-4)
    assert fitted.offset == pytest.approx(float(oracle.intercept_[0]), rel=1e-4)


def test_isotonic_regression_equals_scikit_learn() -> None:
    score, label, _ = draw(videos=50, slope=0.5)
    score = (score * 40).round() / 40  # ties
    target, weight = smoothed_targets(label)
    logit = logits(score)
    oracle = IsotonicRegression().fit(logit.numpy(), target.numpy(), weight.numpy())
    fitted = FITS["isotonic"](logit, label)
    assert calibrate(fitted, score).numpy() == pytest.approx(
        oracle.predict(logit.numpy()), abs=1e-9
    )


@pytest.mark.parametrize("kind", FITS)
def test_a_calibration_never_reverses_two_scores(kind: str) -> None:
    score, label, _ = draw(slope=3, offset=1)
    fitted = FITS[kind](logits(score), label)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert (calibrate(fitted, grid).diff() >= -1e-15).all()
    if kind != "isotonic":
        assert auc(calibrate(fitted, score), label) == pytest.approx(auc(score, label), abs=1e-12)


@pytest.mark.parametrize("kind", FITS)
def test_scores_that_rank_backwards_are_not_turned_round(kind: str) -> None:
    score, label, _ = draw()
    fitted = FITS[kind](logits(1 - score), label)
    assert (
        calibrate(fitted, torch.linspace(0, 1, 101, dtype=torch.float64)).diff() >= -1e-15
    ).all()


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("frames", [1, 3])
def test_separated_classes_and_constant_scores_give_finite_probabilities(
    kind: str, frames: int
) -> None:
    label = torch.tensor([0, 0, 1, 1]).repeat_interleave(frames)
    for score in (label.double(), torch.full((4 * frames,), 0.5)):
        value = calibrate(FITS[kind](logits(score), label), score)
        assert value.isfinite().all()
        assert ((value > 0) & (value < 1)).all() or kind == "none"


def test_the_kept_map_has_the_lowest_loss_on_videos_that_it_has_not_seen() -> None:
    score, label, video = draw(videos=400, slope=6, offset=2)
    fit = fit_calibration(score, label, video)
    assert fit is not None
    assert fit.calibration.kind == min(fit.losses, key=fit.losses.__getitem__) != "none"
    assert fit.after["log_loss"] == fit.losses[fit.calibration.kind]
    assert fit.after["log_loss"] < fit.before["log_loss"] - 0.1
    assert fit.before["log_loss"] == pytest.approx(log_loss(score, label))
    assert fit.after["ece"] < fit.before["ece"]


def test_frames_of_a_video_stay_in_one_fold() -> None:
    score, label, video = draw(videos=23, frames=7)
    dealt = post_hoc.deal_folds(score, label, video, 5)
    folds = torch.stack([dealt == number for number in range(5)])
    for number in range(23):
        assert folds[:, video == number].any(1).sum() == 1
    for fold in folds:
        assert label[fold].unique().tolist() == [0, 1]


def test_from_ten_videos_of_each_class_on_a_map_is_fitted() -> None:
    assert fit_calibration(*draw(videos=19)) is None
    fit = fit_calibration(*draw(videos=20))
    assert fit is not None
    assert all(np.isfinite(list(fit.losses.values())))


@pytest.mark.parametrize("frames", [1, 4])
def test_neither_the_order_of_rows_nor_the_numbers_of_videos_change_a_fit(frames: int) -> None:
    score, label, video = draw(videos=40, frames=frames, slope=2)
    score = (score * 50).round() / 50  # with ties
    fit = fit_calibration(score, label, video)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(score), generator=generator)
        names = torch.randperm(40, generator=generator)
        assert fit_calibration(score[rows], label[rows], names[video][rows]) == fit


def test_the_fit_is_the_same_every_time_and_survives_json() -> None:
    one, other = (fit_calibration(*draw(slope=2)) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one == other
    for kind in FITS:
        score, label, _ = draw(slope=2)
        fitted = FITS[kind](logits(score), label)
        again = Calibration(**json.loads(json.dumps(asdict(fitted))))
        assert torch.equal(calibrate(again, score), calibrate(fitted, score))


def test_a_constant_half_costs_ln_2_whatever_the_share_of_fakes() -> None:
    label = torch.tensor([0, 1, 1, 1, 1])
    assert log_loss(torch.full((5,), 0.5, dtype=torch.float64), label) == pytest.approx(np.log(2))
