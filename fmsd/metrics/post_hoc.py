"""Post-hoc calibration: maps from a detector's score to a probability, fitted on validation data.

The maps are temperature scaling (C. Guo, G. Pleiss, Y. Sun and K. Weinberger, On Calibration of
Modern Neural Networks, 2017, arXiv:1706.04599), Platt scaling (J. Platt, Probabilistic Outputs for
Support Vector Machines, 1999) and isotonic regression (B. Zadrozny and C. Elkan, Transforming
Classifier Scores into Accurate Multiclass Probability Estimates, 2002).

Our reading: real and fake items weigh equally, so that a probability does not repeat how many fakes
a dataset happens to have; every map is fitted to Platt's smoothed targets, so that none is certain
where the classes are separated; and the map is chosen by cross-validation over videos.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fmsd.metrics.calibration import brier, expected_calibration_error
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.score_meaning import MIN_VIDEOS, Calibration, to_logit

FOLDS = 5
"""Parts of the videos in cross-validation."""

Values = Float64[Tensor, " items"]


@dataclass(frozen=True)
class Fit:
    """A calibration and how well it does on videos that it was not fitted to.

    Args:
        calibration: fitted to all items.
        losses: by kind, the log-loss in cross-validation, in nats.
        before, after: `log_loss`, `brier` and `ece` of the scores and of the calibrated
            probabilities, of items that the map was not fitted to. `after` is slightly optimistic:
            the kind was chosen by the same losses.
    """

    calibration: Calibration
    losses: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]


def fit_calibration(
    score: Scores, label: Labels, video: Int[Tensor, " items"], folds: int = FOLDS
) -> Fit | None:
    """Fits every kind of map, and keeps the one with the lowest log-loss in cross-validation.

    The fit depends neither on the order of the items nor on the numbers of the videos.

    Args:
        score: probabilities of fake.
        video: number of the video that each item belongs to; its items stay in one fold.
        folds: number of folds, at most the number of videos of a class.

    Returns:
        None where a class has fewer than `MIN_VIDEOS` videos.
    """
    if min(len(video[label == one].unique()) for one in (0, 1)) < MIN_VIDEOS:
        return None
    fold = deal_folds(score, label, video, folds)
    order = np.lexsort((score.numpy(), label.numpy(), fold.numpy()))
    score, label, fold = score[order], label[order], fold[order]
    held_out = [fold == number for number in range(int(fold.max()) + 1)]
    predicted = {}
    for kind, fit in FITS.items():
        probability = torch.empty(len(score), dtype=torch.float64)
        for test in held_out:
            calibration = fit(logits(score[~test]), label[~test])
            probability[test] = calibrate(calibration, score[test])
        predicted[kind] = probability
    losses = {kind: log_loss(probability, label) for kind, probability in predicted.items()}
    best = min(losses, key=losses.__getitem__)  # of equal losses, the simplest map
    return Fit(
        FITS[best](logits(score), label),
        losses,
        calibration_errors(predicted["none"], label),
        calibration_errors(predicted[best], label),
    )


def deal_folds(
    score: Scores, label: Labels, video: Int[Tensor, " items"], folds: int
) -> Int[Tensor, " items"]:
    """The fold of each item: whole videos, each class dealt out evenly.

    Chance decides, from a fixed seed, over the videos in the order of their scores: names and rows
    have no part in it.
    """
    names, number = video.unique(return_inverse=True)
    classes = torch.ones_like(names).scatter_reduce(0, number, label, "amin")
    scores: list[list[float]] = [[] for _ in names]
    for place, value in zip(number.tolist(), score.tolist(), strict=True):
        scores[place].append(value)
    generator = torch.Generator().manual_seed(0)
    fold = torch.empty_like(names)
    for one in (0, 1):
        places = (classes == one).nonzero().flatten().tolist()
        ordered = torch.tensor(sorted(places, key=lambda place: sorted(scores[place])))
        shuffled = ordered[torch.randperm(len(ordered), generator=generator)]
        fold[shuffled] = torch.arange(len(shuffled)) % folds
    return fold[number]


def calibration_errors(probability: Values, label: Labels) -> dict[str, float]:
    """Log-loss, Brier score and expected calibration error."""
    return {
        "log_loss": log_loss(probability, label),
        "brier": brier(probability, label),
        "ece": expected_calibration_error(probability, label),
    }


def log_loss(probability: Values, label: Labels) -> float:
    """The mean of each class's negative log-likelihood, in nats; ln 2 for a constant 0.5."""
    logit = logits(probability)
    real = torch.nn.functional.softplus(logit[label == 0]).mean()
    fake = torch.nn.functional.softplus(-logit[label == 1]).mean()
    return float(real + fake) / 2


def logits(score: Scores) -> Values:
    """The logits of probabilities, see `fmsd.metrics.score_meaning.to_logit`."""
    return torch.from_numpy(to_logit(score.double().numpy()))


def calibrate(calibration: Calibration, score: Scores) -> Values:
    """The calibrated probabilities of scores."""
    return torch.from_numpy(calibration(score.double().numpy()))


def smoothed_targets(label: Labels) -> tuple[Values, Values]:
    """Platt's targets in place of 0 and 1, and weights that sum to one half for each class."""
    count = torch.bincount(label, minlength=2).double()
    ends = torch.stack([1 / (count[0] + 2), (count[1] + 1) / (count[1] + 2)])
    return ends[label], (0.5 / count)[label]


def _fit_none(logit: Values, label: Labels) -> Calibration:
    """The scores as they are."""
    return Calibration("none")


def _fit_temperature(logit: Values, label: Labels) -> Calibration:
    """The slope with the lowest log-loss."""
    slope, _ = fit_line(logit, label, offset=False)
    return Calibration("temperature", slope)


def _fit_platt(logit: Values, label: Labels) -> Calibration:
    """The slope and the offset with the lowest log-loss."""
    return Calibration("platt", *fit_line(logit, label, offset=True))


def fit_line(logit: Values, label: Labels, offset: bool, steps: int = 100) -> tuple[float, float]:
    """The slope, not below 0, and offset of the line in the logit with the lowest log-loss.

    Newton's method with halved steps; the loss is convex.
    """
    target, weight = smoothed_targets(label)
    design = torch.stack([logit, torch.ones_like(logit)][: 1 + offset], dim=1)

    def loss(line: Tensor) -> Tensor:
        value = design @ line
        return (weight * (torch.nn.functional.softplus(value) - target * value)).sum()

    line = torch.zeros(design.shape[1], dtype=torch.float64)
    for _ in range(steps):
        probability = torch.sigmoid(design @ line)
        gradient = design.T @ (weight * (probability - target))
        curvature = weight * probability * (1 - probability)
        hessian = design.T @ (curvature[:, None] * design)
        hessian += 1e-12 * torch.eye(len(line), dtype=torch.float64)  # of equal logits
        step = torch.linalg.solve(hessian, gradient)
        if float(gradient @ step) < 1e-16:
            break
        size = 1.0
        while loss(line - size * step) > loss(line) and size > 1e-9:
            size /= 2
        line = line - size * step
    if line[0] < 0:  # the ranking would be reversed: no score says anything
        constant = float((weight * target).sum())
        return 0.0, math.log(constant / (1 - constant)) if offset else 0.0
    return float(line[0]), float(line[1]) if offset else 0.0


def _fit_isotonic(logit: Values, label: Labels) -> Calibration:
    """The rising step function with the lowest squared error, joined by lines between its steps.

    Pool adjacent violators (M. Ayer et al., An Empirical Distribution Function for Sampling with
    Incomplete Information, 1955).
    """
    target, weight = smoothed_targets(label)
    places, inverse = logit.unique(return_inverse=True)
    zeros = torch.zeros(len(places), dtype=torch.float64)
    mass = zeros.scatter_add(0, inverse, weight)
    total = zeros.scatter_add(0, inverse, weight * target)
    blocks: list[tuple[float, float, float, float]] = []  # mass, total, first and last logit
    for one_mass, one_total, place in zip(
        mass.tolist(), total.tolist(), places.tolist(), strict=True
    ):
        block = (one_mass, one_total, place, place)
        while blocks and blocks[-1][1] * block[0] >= block[1] * blocks[-1][0]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2], block[3])
        blocks.append(block)
    points = []
    for block_mass, block_total, first, last in blocks:
        height = math.log(block_total / (block_mass - block_total))
        points += [(first, height)] if first == last else [(first, height), (last, height)]
    x, y = zip(*points, strict=True)
    return Calibration("isotonic", places=list(x), heights=list(y))


FITS: Mapping[str, Callable[[Values, Labels], Calibration]] = {
    "none": _fit_none,
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}
"""The kinds of maps, the simplest first."""
