"""The wrappers for training loops of your own, without Lightning."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmsd.errors import InputError
from fmsd.optim.replay import Repeatable
from fmsd.optim.wrapper import ERM, OptimizerWrapper, Outcome, Pass, check_head


class DropIn:
    """Any torch optimizer behind a wrapper, with the look of an optimizer: `step(closures)` takes the place of backward and step.

    The wrapper has no state, so `state_dict` is that of the optimizer: whole, and readable without
    this class. Give a learning rate schedule the optimizer itself, and do not scale the loss
    (`GradScaler`): a wrapper needs gradients as they are.

    Args:
        optimizer: any torch optimizer over the model's trainable parameters.
        wrapper: the rule, e.g. `RoGA()`.
        model: the model; its batch norm statistics move in the first pass only.
        head: the model's classifier, as a module or by its parameters. A wrapper with
            perturb="backbone", the default, does not perturb it and needs to know it; with
            perturb="all" it is there for the diagnostics, and may be left out.

    Raises:
        InputError: perturb="backbone" without a head, with one that the optimizer does not train,
            or with nothing else to perturb.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        wrapper: OptimizerWrapper,
        model: nn.Module,
        head: nn.Module | Iterable[nn.Parameter] | None = None,
    ) -> None:
        self.optimizer, self.wrapper, self.model = optimizer, wrapper, model
        self.head = (
            None
            if head is None
            else set(head.parameters() if isinstance(head, nn.Module) else head)
        )
        self.outcome: Outcome | None = None
        check_head(wrapper.perturb, self.trainable(), self.head)
        if (
            wrapper.perturb == "backbone"
            and self.head is not None
            and self.head.isdisjoint(self.trainable())
        ):
            raise InputError(
                "None of the head's parameters is trained by the optimizer",
                "give the head of this model, or take a wrapper with perturb='all' where the head "
                "is frozen",
            )

    def step(
        self,
        closures: Callable[[], Tensor] | Sequence[Callable[[], Tensor]],
        epoch: int | None = None,
    ) -> Tensor:
        """One step on the mean of the closures' losses, which it returns; what the wrapper found lies in `outcome`.

        Args:
            closures: one per forgery domain, or a single one; each runs a forward pass on the same
                frames whenever it is called and returns a loss with its graph.
            epoch: number of the epoch from 0, for a wrapper that begins with epochs of plain ERM.

        Raises:
            InputError: a wrapper that warms up and no epoch.
        """
        if epoch is None and self.wrapper.warmup_epochs:
            raise InputError(
                f"The wrapper begins with {self.wrapper.warmup_epochs} epochs of plain ERM",
                "say where training is with step(closures, epoch=...), or make the wrapper with "
                "warmup_epochs=0",
            )
        many = [closures] if callable(closures) else list(closures)
        passes = [Repeatable(backward(closure, len(many)), self.model) for closure in many]
        rule = ERM() if epoch is not None and epoch < self.wrapper.warmup_epochs else self.wrapper
        with torch.enable_grad():
            self.outcome = rule(self.trainable(), passes, head=self.head)
        self.optimizer.step()
        self.zero_grad()
        return self.outcome.losses.sum()

    def trainable(self) -> list[nn.Parameter]:
        """The optimizer's parameters that are not frozen."""
        return [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients; `step` does so, too."""
        self.optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Mapping[Any, Any]:
        """The optimizer's."""
        return self.optimizer.state

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, which is all there is."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.optimizer.load_state_dict(state_dict)


def backward(closure: Callable[[], Tensor], count: int) -> Pass:
    """The forward and backward pass of one of `count` closures."""

    def run() -> Tensor:
        loss = closure() / count
        loss.backward()
        return loss.detach()

    return run
