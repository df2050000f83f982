"""What a method is: it makes something in a detector trainable, and says what its training needs beside the loss."""

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
    """Training batches for a method that looks at the data before it chooses what learns; they lie on the detector's device."""

    @property
    def domains(self) -> Sequence[str]:
        """The forgery domains of the training data."""
        ...

    @property
    def mask(self) -> Path | None:
        """The layer mask that this training was begun with before it was interrupted; None where it begins now."""
        ...

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        """At most `count` shuffled batches, others at every call; with a domain, of its fakes and as many real frames."""
        ...

    def precision(self) -> AbstractContextManager[Any]:
        """What forward passes run in, so that they cost what those of training cost."""
        ...

    def agreed(self, found: Any) -> Any:
        """What the first of several training processes found: choices that rest on it must not differ by rounding errors."""
        ...


@dataclass(frozen=True)
class Adaptation:
    """What a method did, as far as training needs it.

    Args:
        penalties: what training adds to the loss.
        mask: which layers were chosen to learn, and why; None where every matching layer learns.
        history: which artifact subspaces were active when, where that changes during training.
        resting: the parameters that must not move in this step, by an optimizer wrapper's
            perturbation neither.
        observe: runs when the optimizer wrapper has left its direction, made of gradients of the
            classification loss alone, before the gradients of the penalties are added.
        before_step: runs when all gradients are there; it may drop some.
        state: what the method remembers from step to step, for checkpoints.
    """

    penalties: Penalties = field(default_factory=dict)
    mask: LayerMask | None = None
    history: MaskHistory | None = None
    resting: Callable[[], Collection[nn.Parameter]] | None = None
    observe: Callable[[], None] | None = None
    before_step: Callable[[], None] | None = None
    state: nn.Module | None = None


Method = Callable[[Detector, Batches], Adaptation]
"""Makes something in a detector trainable, in place, and freezes the rest. Most methods ignore the batches."""
