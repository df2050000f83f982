"""Settings of the optimizer step."""

from dataclasses import dataclass
from typing import get_args

from fmsd.checks import check_choice, check_range
from fmsd.errors import InputError
from fmsd.optim.groups import Decay


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of the optimizer step, see `fmsd.engine.learner.Learner`.

    Lightning refuses its own clipping and accumulation under manual optimisation, so they are
    settings here.

    Args:
        weight_decay: coefficient of the weight decay, at least 0.
        decay: parameters that it applies to: `matrices` (not biases, norms and subspace factors),
            or `all` trainable ones.
        accumulate: batches per optimizer step, which equals the step of one batch of their frames.
        clip: largest gradient norm of the head and of the backbone, each; None for no limit.
        compiled: forward passes go through `torch.compile`.

    Raises:
        InputError: a setting is out of range or unknown.
    """

    weight_decay: float = 0.01
    decay: Decay = "matrices"
    accumulate: int = 1
    clip: float | None = 1.0
    compiled: bool = False

    def __post_init__(self) -> None:
        """Refuses settings that are out of range or unknown."""
        check_range("learner.weight_decay", self.weight_decay)
        check_choice("learner.decay", self.decay, get_args(Decay))
        check_range("learner.accumulate", self.accumulate, 1)
        if self.clip is not None and self.clip <= 0:
            raise InputError(
                f"learner.clip={self.clip} is out of range",
                "give a norm above 0, or null for no limit",
            )
