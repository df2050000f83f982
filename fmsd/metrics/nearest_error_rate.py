"""The equal error rate of DeepfakeBench's released code, see `fmsd.metrics.definitions`."""

from collections.abc import Callable, Mapping

import torch

from fmsd.metrics.definitions import OURS, check_definitions
from fmsd.metrics.ranking import CURVE_METRICS, Curve, CurveValues


def curve_metrics(definitions: str) -> Mapping[str, Callable[[Curve], CurveValues]]:
    """The metrics that are computed from ROC curves, by short name."""
    check_definitions(definitions)
    if definitions == OURS:
        return CURVE_METRICS
    return {**CURVE_METRICS, "eer": curve_nearest_error_rate}


def curve_nearest_error_rate(curve: Curve) -> CurveValues:
    """The FPR at the point of each curve where FPR and FNR are closest, without interpolation.

    Of several such points it is the one with the highest threshold. As in scikit-learn's
    `roc_curve`, a point between two equal steps is no point of the curve.
    """
    reals, fakes = curve.false_positives.diff(), curve.true_positives.diff()
    moves, count = (reals != 0) | (fakes != 0), reals.shape[-1]
    place = torch.where(moves, torch.arange(count), count)
    following = torch.cat([place[..., 1:], torch.full_like(place[..., :1], count)], -1)
    following = following.flip(-1).cummin(-1).values.flip(-1)  # the next step that moves
    turns = moves.cumsum(-1) == 1
    for steps in (reals, fakes):
        after = torch.cat([steps, torch.full_like(steps[..., :1], -1)], -1)
        turns = turns | (after.gather(-1, following) != steps)
    kept = torch.cat([torch.ones_like(moves[..., :1]), moves & turns], -1)
    rate = curve.false_positive_rate
    gap = ((1 - curve.true_positive_rate) - rate).abs().masked_fill(~kept, torch.inf)
    return rate.gather(-1, gap.argmin(-1, keepdim=True)).squeeze(-1)
