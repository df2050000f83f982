"""ERM: empirical risk minimisation, the plain training step."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from fmsd.optim.flat import clear_gradients, existing_gradients, norm_share
from fmsd.optim.wrapper import HEAD_SHARE, Pass, Perturb, Reduce, StepOutcome


@dataclass(frozen=True, slots=True)
class ERM:
    """Follows the gradient of the loss."""

    warmup_epochs: int = field(default=0, init=False)
    perturb: Perturb = field(default="none", init=False)
    by_domain: ClassVar[bool] = False

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        inactive: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> StepOutcome:
        """Runs each pass once."""
        clear_gradients(params)
        losses = torch.stack([run() for run in passes])
        if reduce is not None:
            reduce([losses, *existing_gradients(params)])
        if head is None:
            return StepOutcome(losses, {})
        share = norm_share(existing_gradients(head), existing_gradients(params))
        return StepOutcome(losses, {HEAD_SHARE: share})
