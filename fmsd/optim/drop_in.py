"""The wrappers for training loops of your own, without Lightning."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.replay import Repeatable
from fmsd.optim.wrapper import OptimizerWrapper, Pass, StepOutcome, check_head


class DropIn:
    """A torch optimizer behind a wrapper: `step(closures)` replaces `backward()` and `step()`.

    The wrapper has no state, so `state_dict` is the optimizer's and can be loaded without this
    class. Give a learning rate schedule the optimizer itself, and do not scale the loss
    (`GradScaler`): a wrapper needs unscaled gradients.

    Args:
        optimizer: any torch optimizer over the model's trainable parameters.
        wrapper: e.g. `RoGA()`.
        model: the model; only the first pass of a step updates its batch norm statistics.
        head: the model's classifier, as a module or by its parameters. A wrapper with
            perturb="backbone", the default, needs it in order not to perturb it; with
            perturb="all" it is optional and serves the diagnostics.

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
        self.outcome: StepOutcome | None = None
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
        """Makes one step on the mean of the closures' losses and returns that mean.

        The wrapper's losses and diagnostics are in `outcome` afterwards.

        Args:
            closures: one per forgery domain, or a single one; each runs a forward pass, on the same
                frames in every call, and returns a loss with its graph.
            epoch: number of the epoch, from 0, for a wrapper with warm-up epochs.

        Raises:
            InputError: the wrapper has warm-up epochs and no epoch is given.
        """
        if epoch is None and self.wrapper.warmup_epochs:
            raise InputError(
                f"The wrapper begins with {self.wrapper.warmup_epochs} epochs of plain ERM",
                "pass the epoch: step(closures, epoch=...), or make the wrapper with "
                "warmup_epochs=0",
            )
        many = [closures] if callable(closures) else list(closures)
        passes = [Repeatable(closure_pass(closure, len(many)), self.model) for closure in many]
        rule = ERM() if epoch is not None and epoch < self.wrapper.warmup_epochs else self.wrapper
        with torch.enable_grad():
            self.outcome = rule(self.trainable(), passes, head=self.head)
        self.optimizer.step()
        self.zero_grad()
        return self.outcome.losses.sum()

    def trainable(self) -> list[nn.Parameter]:
        """Returns the optimizer's trainable parameters."""
        return [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, as `step` does at its end."""
        self.optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the optimizer."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Mapping[Any, Any]:
        """The state of the optimizer."""
        return self.optimizer.state

    def state_dict(self) -> dict[str, Any]:
        """Returns the optimizer's state dict."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state dict of `state_dict`."""
        self.optimizer.load_state_dict(state_dict)


def closure_pass(closure: Callable[[], Tensor], count: int) -> Pass:
    """Returns the pass of one of `count` closures, whose losses are averaged."""

    def run() -> Tensor:
        loss = closure() / count
        loss.backward()
        return loss.detach()

    return run
