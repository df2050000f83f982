"""The contract of a method, which makes part of a detector trainable."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fmsd.models.detector import Detector
from fmsd.peft.mask import LayerMask, MaskHistory
from fmsd.types import Frames

Penalty = Callable[[nn.Module], Tensor]
"""A scalar that training adds to the loss, computed from the adapted model's weights alone."""

Penalties = Mapping[str, tuple[float, Penalty]]
"""Weight and penalty under the name they are logged with."""


@runtime_checkable
class Batches(Protocol):
    """Training batches, on the detector's device, for a method that chooses layers by the data."""

    @property
    def domains(self) -> Sequence[str]:
        """The forgery domains of the training data."""
        ...

    @property
    def mask(self) -> Path | None:
        """The layer mask of the interrupted training that is resumed; None in a new training."""
        ...

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        """Yields at most `count` shuffled batches, new ones in every call.

        Args:
            domain: yield only fakes of this domain, and as many real frames.
        """
        ...

    def precision(self) -> AbstractContextManager[Any]:
        """The precision context of training, for forward passes."""
        ...

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0 in all processes, so that no choice differs by rounding."""
        ...


@runtime_checkable
class StepRule(Protocol):
    """Hooks of a method in every optimizer step, such as MASM's mask.

    It is an `nn.Module`, so that its buffers move to the device of the model.
    """

    history: MaskHistory

    def inactive(self) -> Collection[nn.Parameter]:
        """The parameters that neither this step nor its perturbations may move."""
        ...

    def observe(self) -> None:
        """Runs when p.grad holds the wrapper's direction, before penalties add their gradients."""
        ...

    def before_step(self) -> None:
        """Runs when p.grad is complete, before clipping and the optimizer's step; may drop some."""
        ...

    def state_dict(self, *, prefix: str = "") -> dict[str, Any]:
        """The rule's state, which checkpoints hold."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Loads a state of `state_dict`."""
        ...


@dataclass(frozen=True)
class Adaptation:
    """Result of applying a method to a detector: penalties, layer mask, step rule.

    Args:
        penalties: scalars that training adds to the loss.
        mask: the chosen layers and their scores; None if every matching layer is trained.
        rule: the method's hooks in every step; None for most methods.
    """

    penalties: Penalties = field(default_factory=dict)
    mask: LayerMask | None = None
    rule: StepRule | None = None

    @property
    def history(self) -> MaskHistory | None:
        """The masks of training so far; None if no rule changes a mask."""
        return None if self.rule is None else self.rule.history


Method = Callable[[Detector, Batches], Adaptation]
"""Makes part of a detector trainable, in place, and freezes the rest; most ignore the batches."""
