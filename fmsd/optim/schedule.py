"""Learning rate schedules, in optimizer steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fmsd.errors import InputError


def cosine(optimizer: Optimizer, steps: int, warmup: float = 0.05, floor: float = 0.0) -> LambdaLR:
    """A linear rise over the first `warmup` share of the steps, then half a cosine down to `floor` times the learning rate.

    Raises:
        InputError: a share that is none.
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
    """The same learning rate at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)
