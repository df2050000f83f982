"""MASM: FMSD's decomposition with a mask of artifact subspaces that changes during training.

The first version of FMSD's paper, arXiv 2601.01041 v1.

The paper says: a selective layer mask "adaptively regulates the update behavior of corresponding
network layers according to the learning state of each artifact subspace", suppressing overfitting
to any single forgery characteristic. Our reading: the learning state of a subspace is the share of
signal in its own gradients of the classification loss, from exponential moving averages; each
factor's gradient is measured in units of the factor's length, so that U, s and V have equal weight
however small s is. Every E optimizer steps the subspaces with the highest shares, over all layers,
become active; the others are inactive. An inactive subspace does not move at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.linalg import DirectionSplit
from fmsd.models.detector import Detector
from fmsd.peft.fmsd import (
    Constraint,
    active_penalties,
    candidate_layers,
    directions_per_subspace,
    inject_subspaces,
)
from fmsd.peft.mask import MaskHistory
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.penalties import WEIGHTS
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear, SubspaceSettings
from fmsd.rounding import ceil_share


def masm(
    detector: Detector,
    batches: Batches | None = None,
    *,
    patterns: Sequence[str],
    subspaces: int,
    every: int,
    momentum: float,
    fraction: float,
    directions: int | None = None,
    allotment: Allotment = "interleave",
    split: DirectionSplit = "tail",
    constraint: Constraint = "soft",
    working_scale: bool = True,
    penalties: Mapping[str, float] | None = WEIGHTS,
) -> Adaptation:
    """Makes artifact subspaces of every matching layer and the head trainable, a share at a time.

    Args:
        every: optimizer steps E from one mask to the next; before the first mask all subspaces are
            active.
        momentum: of the moving averages, in [0.5, 1).
        fraction: share of the units (layer and subspace) that are active, rounded up.

    Further arguments: see `fmsd.peft.fmsd.fmsd`.

    Raises:
        InputError: a value is out of range, or as in `fmsd`.
    """
    for name, value, fine, remedy in (
        ("every", every, every >= 1, "give at least 1"),
        (
            "momentum",
            momentum,
            0.5 <= momentum < 1,
            "give a number in [0.5, 1); less averages too few steps to know noise",
        ),
        ("fraction", fraction, 0 < fraction <= 1, "give a number above 0 and at most 1"),
    ):
        if not fine:
            raise InputError(f"method.{name}={value} is out of range", remedy)
    active = active_penalties(penalties or {}, constraint)
    probe(detector)
    settings = SubspaceSettings(
        subspaces=subspaces,
        directions=directions_per_subspace(subspaces, directions, constraint),
        allotment=allotment,
        split=split,
        working_scale=working_scale,
        apart=True,
        based="orthogonality" in active,
        hard=constraint == "hard",
    )
    layers = candidate_layers(detector, patterns, settings)
    inject_subspaces(detector, list(layers), settings)
    rule = SubspaceMaskRule(detector.backbone, every, momentum, fraction)
    return Adaptation(active, rule=rule)


class SubspaceMaskRule(nn.Module):
    """Scores every unit (layer and artifact subspace) and drops the gradients of inactive units.

    A dropped gradient is None, so that any torch optimizer changes neither the parameter nor its
    moments. The statistics of inactive units are updated too, or they could never become active
    again. They are computed from the gradient of the classification loss, or the direction that an
    optimizer wrapper makes of it: a penalty's gradient has no noise and would count as signal.

    The module's state holds everything, so that checkpoints do: `mean` is the moving average of the
    relative gradients of all units, concatenated, `square` that of each unit's squared norm.
    """

    mean: Tensor
    square: Tensor
    sizes: Tensor

    def __init__(self, model: nn.Module, every: int, momentum: float, fraction: float) -> None:
        super().__init__()
        layers = [
            (name, layer)
            for name, layer in model.named_modules()
            if isinstance(layer, SubspaceLinear)
        ]
        pairs = [
            (f"{name}.artifacts.{k}", unit)
            for name, layer in layers
            for k, unit in enumerate(layer.units)
        ]
        self.units = tuple(unit for _, unit in pairs)
        self.every, self.momentum, self.fraction = every, momentum, fraction
        self.history = MaskHistory([name for name, _ in pairs])
        self.seen, self.active = 0, [True] * len(pairs)
        sizes = [sum(factor.numel() for factor in unit.parameters()) for unit in self.units]
        like = next(self.units[0].parameters())
        self.register_buffer("mean", like.new_zeros(sum(sizes)))
        self.register_buffer("square", like.new_zeros(len(sizes)))
        self.register_buffer("sizes", torch.tensor(sizes, device=like.device), persistent=False)

    def get_extra_state(self) -> dict[str, Any]:
        """The state beside tensors: steps seen, active units, and the history of masks."""
        return {"seen": self.seen, "active": self.active, "history": asdict(self.history)}

    def set_extra_state(self, state: Any) -> None:
        """Loads a state of `get_extra_state`."""
        self.seen, self.active = state["seen"], list(state["active"])
        for name, value in state["history"].items():
            setattr(self.history, name, value)

    @torch.no_grad()
    def observe(self) -> None:
        """Updates the averages by p.grad; every E steps, once they suffice, chooses a new mask.

        Raises:
            InputError: a unit has no gradient, or the gradients are not finite.
        """
        for name, unit in zip(self.history.units, self.units, strict=True):
            if any(factor.grad is None for factor in unit.parameters()):
                layer = name.partition(".artifacts.")[0]
                raise InputError(
                    f"No gradient reaches the layer {layer!r}", f"add '!{layer}' to method.patterns"
                )
        gradient = torch.cat(
            [part.flatten() for unit in self.units for part in unit.relative_gradients()]
        )
        self.mean.lerp_(gradient, 1 - self.momentum)
        self.square.lerp_(self._by_unit(gradient), 1 - self.momentum)
        self.seen += 1
        if self.seen % self.every == 0 and self.effective_steps() > 1.5:
            self.choose_units()

    def inactive(self) -> set[nn.Parameter]:
        """The factors of the inactive units."""
        return {
            factor
            for unit, active in zip(self.units, self.active, strict=True)
            if not active
            for factor in unit.parameters()
        }

    def before_step(self) -> None:
        """Drops the gradients of the inactive units, including those of penalties."""
        for factor in self.inactive():
            factor.grad = None

    def effective_steps(self) -> float:
        """The number of equally weighted steps with the same variance as the averages.

        With momentum b, step i of t has the weight w_i = (1 - b) b^(t - i) / (1 - b^t); the number
        is 1 / sum w_i^2.
        """
        b, t = self.momentum, self.seen
        return (1 - b**t) ** 2 / ((1 - b) ** 2 * sum(b ** (2 * i) for i in range(min(t, 2000))))

    def _by_unit(self, vector: Float[Tensor, " parameters"]) -> Float[Tensor, " units"]:
        """The squared norm of each unit's segment of a vector over all units."""
        # unsafe: the lengths are not checked, which would synchronise with a GPU
        return torch.segment_reduce(vector.square(), "sum", lengths=self.sizes, unsafe=True)

    def scores(self) -> Float64[Tensor, " units"]:
        """The share of signal Sig / (Sig + Var) of every unit's gradients, in [0, 1].

        Raises:
            InputError: the gradients are not finite.
        """
        whole, steps = 1 - self.momentum**self.seen, self.effective_steps()
        norm = self._by_unit(self.mean).cpu().double() / whole**2
        square = self.square.cpu().double() / whole
        if not (norm.isfinite().all() and square.isfinite().all()):
            raise InputError(
                "The gradients of the artifact subspaces are not finite: training diverged",
                "lower optimizer.lr",
            )
        variance = (square - norm).clamp(min=0) * steps / (steps - 1)
        signal = (norm - variance / steps).clamp(min=0)
        return torch.where(signal > 0, signal / (signal + variance), 0.0)

    def choose_units(self) -> None:
        """Makes the units with the highest scores, over all layers, active until the next mask."""
        scores = self.scores()
        count = ceil_share(self.fraction, len(scores))
        kept = scores.argsort(descending=True, stable=True)[:count]
        self.active = torch.zeros(len(scores), dtype=torch.bool).index_fill(0, kept, True).tolist()
        self.history.steps.append(self.seen)
        self.history.active.append(self.active)
        self.history.scores.append([round(value, 6) for value in scores.tolist()])
