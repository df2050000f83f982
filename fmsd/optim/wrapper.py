"""Which gradient the wrapped optimizer follows. A wrapper is a frozen value without state; the optimizer stays plain torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class OptimizerWrapper(Protocol):
    """Leaves in p.grad the direction the wrapped optimizer then follows; may perturb parameters, restores them bit for bit; never steps.

    `losses` are closures that run a forward pass each and return a scalar; `backward` takes the place of `Tensor.backward`, so that the
    caller's precision plugin sees it. Gradients are added to what p.grad holds. Returns the detached loss at the unperturbed parameters.
    """

    def __call__(
        self, params: Sequence[nn.Parameter], losses: Sequence[Callable[[], Tensor]], backward: Callable[[Tensor], None]
    ) -> Float[Tensor, ""]:
        """See the class."""
        ...


@dataclass(frozen=True, slots=True)
class ERM:
    """Empirical risk minimisation: the gradient of the mean loss. The plain training step."""

    def __call__(
        self, params: Sequence[nn.Parameter], losses: Sequence[Callable[[], Tensor]], backward: Callable[[Tensor], None]
    ) -> Float[Tensor, ""]:
        """Adds the gradient of the mean of `losses` to p.grad."""
        values = []
        for loss in losses:
            value = loss() / len(losses)
            backward(value)
            values.append(value.detach())
        return torch.stack(values).sum()
