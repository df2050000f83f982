"""The contract of an optimizer wrapper: it decides which direction a plain torch optimizer follows.

A wrapper is a frozen value without state. It runs forward and backward passes, possibly at
perturbed parameters, and leaves a direction in p.grad.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from fmsd.checks import check_range
from fmsd.errors import InputError

Pass = Callable[[], Tensor]
"""A forward and a backward pass: adds a loss's gradient to p.grad and returns the loss, detached.

It may be called several times at different parameters, and then sees the same input and the same
random numbers.
"""

Reduce = Callable[[list[Tensor]], None]
"""Sums tensors over all processes, in place and in one all-reduce."""

Perturb = Literal["backbone", "all", "none"]
"""Which trainable parameters a wrapper perturbs: those outside of the head, all, or none."""

COSINE = "cosine_aligned"
"""Diagnostic: cosine of the gradients at the parameters and at the perturbed parameters."""

DOMAINS = "cosine_domains"
"""Diagnostic: mean cosine between the gradients of two domains."""

DESCENT = "descent_per_ascent"
"""Diagnostic: an ascending point's shift down the gradient, as a share of its ascent.

Above 1 the point is no ascending point. See `fmsd.optim.ascent.descent_per_ascent`.
"""

HEAD_SHARE = "head_gradient_share"
"""Diagnostic: the head's share of the squared norm of the gradient at the parameters."""

PERTURBED_LOSS = "perturbed_loss"
"""Diagnostic: the loss at the perturbed parameters, averaged over the perturbed points."""


class StepOutcome(NamedTuple):
    """Losses and diagnostics of a wrapper's step.

    Args:
        losses: of each pass at the unperturbed parameters, summed over all processes.
        diagnostics: scalars under the names they are logged with.
    """

    losses: Float[Tensor, " passes"]
    diagnostics: Mapping[str, Tensor]


@runtime_checkable
class OptimizerWrapper(Protocol):
    """Leaves in p.grad the direction that the optimizer follows; never steps itself.

    It may perturb parameters, and then restores them bit for bit. The losses of all passes add up
    to the loss of the step.

    Args:
        by_domain: whether the wrapper wants one pass per forgery domain instead of a single one.
    """

    by_domain: ClassVar[bool]

    @property
    def warmup_epochs(self) -> int:
        """Number of first epochs in which plain ERM takes the wrapper's place."""
        ...

    @property
    def perturb(self) -> Perturb:
        """Which trainable parameters the wrapper perturbs."""
        ...

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        inactive: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> StepOutcome:
        """Sets p.grad of `params`: earlier gradients are dropped; None where no pass gives one.

        Args:
            params: every parameter that the passes give a gradient.
            passes: one per domain, or a single one.
            inactive: parameters that must not move in this step; they get a gradient and are not
                perturbed.
            reduce: sums the gradients of several processes; called once for all gradients at the
                parameters and once for those at perturbed ones.
            head: the parameters of the classifier; with perturb="backbone" they get a gradient, are
                not perturbed and do not count in the length of a perturbation. None if they are
                unknown, which perturb="backbone" refuses.
        """
        ...


def check_head(
    perturb: Perturb, params: Collection[nn.Parameter], head: Collection[nn.Parameter] | None
) -> None:
    """Checks that perturb="backbone" knows the head and leaves a parameter to perturb.

    Raises:
        InputError: the head is unknown, or nothing but the head is trainable.
    """
    if perturb != "backbone":
        return
    if head is None:
        raise InputError(
            "wrapper.perturb=backbone leaves out the head, and its parameters are not named",
            "pass them as head=..., or perturb the head as well with wrapper.perturb=all",
        )
    if set(params) <= set(head):
        raise InputError(
            "wrapper.perturb=backbone leaves nothing to perturb, for only the head is trainable",
            "take wrapper=erm, wrapper.perturb=all, or a method that trains more than the head",
        )


def check_nonnegative(**settings: float) -> None:
    """Checks that settings of a wrapper are finite numbers of at least 0.

    Raises:
        InputError: a setting is negative, infinite or no number; it is named.
    """
    for name, value in settings.items():
        check_range(f"wrapper.{name}", value)
