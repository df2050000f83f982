"""MASM: every candidate layer is decomposed, and a mask that changes during training says which artifact subspaces learn.

The first version of FMSD's paper, arXiv 2601.01041 v1.

The paper says: a selective layer mask "adaptively regulates the update behavior of corresponding
network layers according to the learning state of each artifact subspace", suppressing overfitting
to any single forgery characteristic. Our reading: the learning state of a subspace is the share of
signal in its own gradients of the classification loss, from exponential moving averages; each
factor's gradient counts in units of the factor's length, so that U, s and V count alike however
small s is. Every E optimizer steps the subspaces with the highest shares, over all layers, are
chosen to learn; the others rest. A resting subspace does not move at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.linalg import Split
from fmsd.models.detector import Detector
from fmsd.peft.fmsd import Constraint, allowed, candidates, free, per_subspace
from fmsd.peft.mask import MaskHistory
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.penalties import WEIGHTS
from fmsd.peft.probe import probe
from fmsd.peft.subspace import Allotment, SubspaceLinear
from fmsd.shares import ceil_share


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
    split: Split = "tail",
    constraint: Constraint = "soft",
    working_scale: bool = True,
    penalties: Mapping[str, float] | None = WEIGHTS,
) -> Adaptation:
    """Frees singular directions of every matching layer, and the head; during training only a share of the subspaces learns at a time.

    Args:
        every: optimizer steps E from one mask to the next; before the first mask all subspaces
            learn.
        momentum: of the moving averages.
        fraction: share of the units (layer and subspace) that learn, rounded up.

    The other arguments are those of `fmsd.peft.fmsd.fmsd`.

    Raises:
        InputError: as `fmsd`, or a value out of range.
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
    chosen = allowed(penalties or {}, constraint)
    probe(detector)
    directions = per_subspace(subspaces, directions, constraint)
    layers = candidates(detector, patterns, subspaces, directions)
    free(
        detector,
        list(layers),
        subspaces,
        directions,
        allotment,
        split,
        constraint,
        working_scale,
        "orthogonality" in chosen,
        apart=True,
    )
    rule = Rule(detector.backbone, every, momentum, fraction)
    return Adaptation(chosen, None, rule.history, rule.resting, rule.observe, rule.drop, rule)


class Rule(nn.Module):
    """Watches the gradients of every unit (layer and artifact subspace) and drops those of the units that rest.

    A dropped gradient is None, so that any torch optimizer leaves parameter and moments alone. The
    statistics go on, or a resting unit could never come back. They are those of the classification
    loss alone, or of the direction that an optimizer wrapper makes of it: a penalty's gradient has
    no noise and would count as signal. All of it is in the module's state, so that checkpoints hold
    it: `mean` averages the relative gradients, all units one after the other, `square` each unit's
    squared norm.
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
        numbers = [sum(factor.numel() for factor in unit.parameters()) for unit in self.units]
        like = next(self.units[0].parameters())
        self.register_buffer("mean", like.new_zeros(sum(numbers)))
        self.register_buffer("square", like.new_zeros(len(numbers)))
        self.register_buffer("sizes", torch.tensor(numbers, device=like.device), persistent=False)

    def get_extra_state(self) -> dict[str, Any]:
        """What is no tensor: the steps seen, which units are active, and the history of the masks."""
        return {"seen": self.seen, "active": self.active, "history": asdict(self.history)}

    def set_extra_state(self, state: Any) -> None:
        """Takes over what `get_extra_state` gave."""
        self.seen, self.active = state["seen"], list(state["active"])
        for name, value in state["history"].items():
            setattr(self.history, name, value)

    @torch.no_grad()
    def observe(self) -> None:
        """Takes the gradients of a step into the averages, and renews the mask when it is time and the averages are worth two steps."""
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
        if self.seen % self.every == 0 and self.worth() > 1.5:
            self.renew()

    def resting(self) -> set[nn.Parameter]:
        """The factors of the units that rest."""
        return {
            factor
            for unit, active in zip(self.units, self.active, strict=True)
            if not active
            for factor in unit.parameters()
        }

    def drop(self) -> None:
        """Drops the gradients of the units that rest, those of the penalties among them."""
        for factor in self.resting():
            factor.grad = None

    def worth(self) -> float:
        """How many steps the averages are worth.

        With momentum b over t steps step i weighs w_i = (1 - b) b^(t - i) / (1 - b^t), and the
        average is worth 1 / sum w_i^2 steps.
        """
        b, t = self.momentum, self.seen
        return (1 - b**t) ** 2 / ((1 - b) ** 2 * sum(b ** (2 * i) for i in range(min(t, 2000))))

    def _by_unit(self, vector: Float[Tensor, " numbers"]) -> Float[Tensor, " units"]:
        """Squared norm of each unit's stretch of a vector over all units."""
        return torch.segment_reduce(
            vector.square(), "sum", lengths=self.sizes, unsafe=True
        )  # unsafe: lengths are not checked, which would wait for a GPU

    def scores(self) -> Float64[Tensor, " units"]:
        """Share of signal Sig / (Sig + Var) of every unit's gradients, in [0, 1].

        Raises:
            InputError: the gradients are not finite.
        """
        whole, worth = 1 - self.momentum**self.seen, self.worth()
        norm, square = (
            self._by_unit(self.mean).cpu().double() / whole**2,
            self.square.cpu().double() / whole,
        )
        if not (norm.isfinite().all() and square.isfinite().all()):
            raise InputError(
                "The gradients of the artifact subspaces are not finite: training diverged",
                "lower optimizer.lr",
            )
        variance = (square - norm).clamp(min=0) * worth / (worth - 1)
        signal = (norm - variance / worth).clamp(min=0)
        return torch.where(signal > 0, signal / (signal + variance), 0.0)

    def renew(self) -> None:
        """Chooses the units that learn until the next time: those with the highest scores over all layers."""
        scores = self.scores()
        kept = scores.argsort(descending=True, stable=True)[
            : ceil_share(self.fraction, len(scores))
        ]
        self.active = torch.zeros(len(scores), dtype=torch.bool).index_fill(0, kept, True).tolist()
        self.history.steps.append(self.seen)
        self.history.active.append(self.active)
        self.history.scores.append([round(value, 6) for value in scores.tolist()])
