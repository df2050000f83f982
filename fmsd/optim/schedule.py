"""Learning rate schedules, in optimizer steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fmsd.errors import InputError


def cosine(optimizer: Optimizer, steps: int, warmup: float = 0.05, floor: float = 0.0) -> LambdaLR:
    """Returns a schedule that rises linearly, then falls along half a cosine.

    Args:
        steps: optimizer steps of the whole training.
        warmup: share of the steps in which the learning rate rises, in [0, 1].
        floor: learning rate at the end, as a share of the highest, in [0, 1].

    Raises:
        InputError: a share outside of [0, 1].
    """
    for name, value in {"warmup": warmup, "floor": floor}.items():
        if not 0 <= value <= 1:
            raise InputError(f"schedule.{name}={value} is no share", "give a number from 0 to 1")
    rise = max(1, round(warmup * steps)) if warmup else 0

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = min(1.0, (step - rise) / max(1, steps - rise))
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Returns a schedule that keeps the learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)
