"""The contract of a loss: what training minimises over the frames of a step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from fmsd.errors import InputError

PAIR_TERMS = ("uniformity", "alignment")
"""The names of the terms that compare different frames of one forward pass."""


class Outputs(NamedTuple):
    """The outputs of a detector for the frames of one forward pass.

    Args:
        logit: of each frame, in float32.
        label: 0 real, 1 fake.
        weight: 1, or 0 for a frame that only pads a process's batch and must have no influence.
        progress: share of the training's steps that are done, from 0 to below 1.
        feature: the input of the head's last matrix, not normalised; None unless the loss needs it.
        strong_logit: of the strongly augmented view of the same frames; None unless the loss needs
            it.
    """

    logit: Float[Tensor, " frames"]
    label: Int[Tensor, " frames"]
    weight: Float[Tensor, " frames"]
    progress: float = 0.0
    feature: Float[Tensor, "frames channels"] | None = None
    strong_logit: Float[Tensor, " frames"] | None = None


@runtime_checkable
class Loss(Protocol):
    """Computes the terms of the loss of each frame; a frozen value without state.

    The loss of a step is the mean over its frames of the sum of the terms. A term of a whole batch,
    such as uniformity, is one number that each of the batch's frames gets: with one batch per step
    its mean is that number; a step of several batches, domains or processes has the mean over its
    frames of the numbers of its parts.
    """

    @property
    def terms(self) -> Sequence[str]:
        """The names of the terms, which they are logged under."""
        ...

    @property
    def needs_features(self) -> bool:
        """Whether `Outputs.feature` must be given."""
        ...

    @property
    def needs_strong_view(self) -> bool:
        """Whether `Outputs.strong_logit` must be given: a second forward pass."""
        ...

    def __call__(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """Computes each of the terms, of shape (frames,), weighted, with a gradient.

        The gradient must be finite also for one frame, and for frames of one class.
        """
        ...


def check_views(loss: Loss, strong: str | None) -> None:
    """Checks that a strongly augmented view of each frame is loaded if the loss needs it, only.

    Args:
        strong: the name of its augmentation, `data.strong`; None for no such view.

    Raises:
        InputError: it is needed and not loaded, or loaded and not needed.
    """
    if loss.needs_strong_view and strong is None:
        raise InputError(
            "The loss needs a second view of each frame, and data.strong is not set",
            "name the augmentation of that view, e.g. data.strong=dfb",
        )
    if strong is not None and not loss.needs_strong_view:
        raise InputError(
            f"data.strong={strong} loads a second view of each frame, which the loss does not use",
            "set data.strong=null, or take loss=consistency",
        )


def check_batch_size(loss: Loss, size: int, processes: int) -> None:
    """Checks that each process has two frames of a batch if the loss compares frames.

    Args:
        size: frames per batch over all processes, `data.batch_size`.

    Raises:
        InputError: a process has fewer, so that a term of pairs would always be 0.
    """
    terms = [name for name in PAIR_TERMS if name in loss.terms]
    if terms and size // processes < 2:
        shared = f" in {processes} processes" if processes > 1 else ""
        raise InputError(
            f"The loss has the terms of pairs {' and '.join(terms)}, but data.batch_size={size}"
            f"{shared} leaves a forward pass with a single frame",
            f"set data.batch_size={2 * processes} or more, or take loss=bce",
        )
