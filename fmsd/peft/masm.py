"""MASM: every candidate layer is decomposed, and a mask that changes during training says which artifact subspaces learn.

The first version of FMSD's paper, arXiv 2601.01041 v1.

The paper says: a selective layer mask "adaptively regulates the update behavior of corresponding network layers according to the
learning state of each artifact subspace", suppressing overfitting to any single forgery characteristic. Our reading: the learning
state of a subspace is the share of signal in its own gradients, from exponential moving averages; every so many optimizer steps the
subspaces with the highest shares, over all layers, learn and the others rest. A resting subspace does not move at all.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from fmsd.linalg import Split
from fmsd.mask import MaskHistory
from fmsd.models.detector import Detector
from fmsd.peft.fmsd import Constraint, allowed, candidates, decompose
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear, retract
from fmsd.types import InputError

log = logging.getLogger(__name__)


def masm(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    subspaces: int,
    directions: int,
    every: int,
    momentum: float,
    fraction: float,
    allotment: Allotment = "interleave",
    split: Split = "tail",
    constraint: Constraint = "soft",
    penalties: Mapping[str, float] | None = None,
) -> Adaptation:
    """Frees singular directions of every matching layer, and the head; during training only a share of the subspaces learns at a time.

    Args:
        every: optimizer steps E from one mask to the next; before the first mask all subspaces learn.
        momentum: of the moving averages.
        fraction: share of the units (layer and subspace) that learn, rounded up.

    The other arguments are those of `fmsd.peft.fmsd.fmsd`.

    Raises:
        InputError: as `fmsd`, or a value out of range.
    """
    if every < 1 or not 0 <= momentum < 1 or not 0 < fraction <= 1:
        raise InputError(
            f"method.every={every} must be at least 1, method.momentum={momentum} in [0, 1) and method.fraction={fraction} above 0 and at most 1."
        )
    if constraint == "hard" and directions == 1 and fraction < 1:
        log.warning(
            "With method.constraint=hard a subspace of one direction can only turn while another of its layer learns; raise method.directions."
        )
    chosen = allowed(penalties or {}, constraint)
    probe(detector)
    layers = candidates(detector, patterns, subspaces, directions)
    decompose(detector, list(layers), subspaces, directions, allotment, split, constraint, "orthogonality" in chosen, apart=True)
    rule = Rule(detector.backbone, every, momentum, fraction)
    after = partial(retract, detector) if constraint == "hard" else None
    return Adaptation(chosen, history=rule.history, before_step=rule, after_step=after, state=rule)


class Rule(nn.Module):
    """Watches the gradients of every unit (layer and artifact subspace) and drops those of the units that rest.

    A dropped gradient is None, so that any torch optimizer leaves parameter and moments alone. The statistics go on, or a resting unit
    could never come back. They are buffers, so that checkpoints hold them: `mean` averages the gradients, all units one after the
    other, `square` each unit's squared norm; `seen` counts the steps, `active` says which units learn.
    """

    mean: Tensor
    square: Tensor
    seen: Tensor
    active: Tensor

    def __init__(self, model: nn.Module, every: int, momentum: float, fraction: float) -> None:
        super().__init__()
        layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, SubspaceLinear)]
        pairs = [(f"{name}.artifacts.{k}", unit) for name, layer in layers for k, unit in enumerate(layer.units)]
        self.units = tuple(unit for _, unit in pairs)
        self.every, self.momentum, self.fraction = every, momentum, fraction
        self.history = MaskHistory([name for name, _ in pairs])
        self.sizes = [sum(factor.numel() for factor in unit.parameters()) for unit in self.units]
        like = self.units[0].s
        self.register_buffer("mean", like.new_zeros(sum(self.sizes)))
        self.register_buffer("square", like.new_zeros(len(self.units)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=like.device))
        self.register_buffer("active", torch.ones(len(self.units), dtype=torch.bool, device=like.device))

    @torch.no_grad()
    def forward(self) -> None:
        """Runs before each optimizer step: takes the gradients into the averages, renews the mask when it is time, and drops gradients."""
        gradients = [cast(Tensor, factor.grad).flatten() for unit in self.units for factor in unit.parameters()]
        gradient = torch.cat(gradients)
        self.mean.lerp_(gradient, 1 - self.momentum)
        self.square.lerp_(self._by_unit(gradient), 1 - self.momentum)
        self.seen += 1
        if int(self.seen) % self.every == 0:
            self.renew()
        for unit, active in zip(self.units, self.active.tolist(), strict=True):
            if not active:
                unit.u.grad = unit.s.grad = unit.v.grad = None

    def _by_unit(self, vector: Float[Tensor, " numbers"]) -> Float[Tensor, " units"]:
        """Squared norm of each unit's stretch of a vector over all units."""
        return torch.segment_reduce(vector.square(), "sum", lengths=torch.tensor(self.sizes, device=vector.device))

    def scores(self) -> Float64[Tensor, " units"]:
        """Share of signal Sig / (Sig + Var) of every unit's gradients, in [0, 1].

        An average with momentum b over t steps weighs step i by w_i = (1 - b) b^(t - i) / (1 - b^t); it is worth n = 1 / sum w_i^2 steps.
        """
        b, t = self.momentum, int(self.seen)
        whole = 1 - b**t
        worth = whole**2 / ((1 - b) ** 2 * sum(b ** (2 * i) for i in range(t)))
        norm, square = self._by_unit(self.mean).double() / whole**2, self.square.double() / whole
        variance = (square - norm).clamp(min=0) * (worth / (worth - 1) if worth > 1 else 0.0)
        signal = (norm - variance / worth).clamp(min=0)
        return torch.where(signal > 0, signal / (signal + variance), 0.0)

    def renew(self) -> None:
        """Chooses the units that learn until the next time: those with the highest scores over all layers."""
        scores = self.scores()
        ranked = scores.argsort(descending=True, stable=True)
        self.active.fill_(False)
        self.active[ranked[: math.ceil(self.fraction * len(scores))]] = True
        self.history.steps.append(int(self.seen))
        self.history.active.append(self.active.tolist())
        self.history.scores.append([round(value, 6) for value in scores.tolist()])
