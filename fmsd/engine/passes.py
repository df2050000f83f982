"""A pass over the frames of a step: forward, the terms of the loss, backward."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fmsd.engine.domains import Part
from fmsd.losses.loss import Loss, Outputs
from fmsd.optim.wrapper import Pass


def loss_pass(
    parts: Sequence[Part],
    total: int,
    loss: Loss,
    outputs: Callable[[Part], Outputs],
    backward: Callable[[Tensor], None],
    terms: Float[Tensor, " terms"],
) -> Pass:
    """The pass that adds the gradient of the parts' share of a mean over `total` frames.

    Args:
        outputs: runs the detector on a part.
        backward: runs the backward pass of a scalar.
        terms: gets the same share of each of several terms; from the first run of the pass, which
            every wrapper makes at the unperturbed parameters.
    """
    runs = itertools.count()

    def run() -> Tensor:
        recorded = next(runs) == 0 and len(loss.terms) > 1
        whole = torch.zeros((), device=terms.device)
        for part in parts:
            losses = loss(outputs(part))
            summed = functools.reduce(torch.add, losses.values())
            mean = (summed * part.weight).sum() / total
            backward(mean)
            whole += mean.detach()
            if recorded:
                sums = [losses[name].detach() @ part.weight for name in loss.terms]
                terms.add_(torch.stack(sums), alpha=1 / total)
        return whole

    return run
