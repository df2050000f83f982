"""Which gradient the wrapped optimizer follows. A wrapper is a frozen value without state; the optimizer stays plain torch."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd.errors import InputError

Pass = Callable[[], Tensor]
"""A forward and a backward pass: adds a loss's gradient to p.grad and returns the loss, detached.

It may be called several times at different parameters, and then sees the same input and the same random numbers.
"""

Reduce = Callable[[list[Tensor]], None]
"""Sums tensors over all processes, in place and in one go."""

TINY = 1e-12
"""Keeps the direction of a gradient of zeros finite."""


COSINE = "cosine_aligned"
"""Cosine between the gradient at the parameters and the one at the perturbed parameters."""

DOMAINS = "cosine_domains"
"""Mean cosine between the gradients of two domains."""

DESCENT = "descent_per_ascent"
"""alpha ||g|| / rho: how far an ascending point is shifted down, as a share of how far it lies up; above 1 it is no ascending point."""


class Outcome(NamedTuple):
    """What a wrapper found on its way.

    Args:
        losses: of each pass at the unperturbed parameters, over all processes.
        diagnostics: scalars under the names they are logged with.
    """

    losses: Float[Tensor, " passes"]
    diagnostics: Mapping[str, Tensor]


@runtime_checkable
class OptimizerWrapper(Protocol):
    """Leaves in p.grad the direction the wrapped optimizer then follows; may perturb parameters, restores them bit for bit; never steps.

    The losses of all passes add up to the loss of the step. `by_domain` says whether a wrapper wants one pass for each forgery domain
    instead of a single one, `warmup_epochs` for how many epochs plain `ERM` takes its place.
    """

    by_domain: ClassVar[bool]

    @property
    def warmup_epochs(self) -> int:
        """See the class."""
        ...

    def __call__(
        self, params: Sequence[nn.Parameter], passes: Sequence[Pass], resting: Collection[nn.Parameter] = (), reduce: Reduce | None = None
    ) -> Outcome:
        """Sets p.grad of `params`; what it held before is dropped, and what no pass reaches has None.

        Args:
            params: everything that the passes give a gradient.
            passes: one per domain, or a single one.
            resting: parameters that must not move now; they get a gradient and are not perturbed.
            reduce: joins the gradients of several processes; called once for all gradients at the parameters and once for those
                at perturbed ones.
        """
        ...


@dataclass(frozen=True, slots=True)
class ERM:
    """Empirical risk minimisation: the gradient of the loss. The plain training step."""

    warmup_epochs: int = field(default=0, init=False)
    by_domain: ClassVar[bool] = False

    def __call__(
        self, params: Sequence[nn.Parameter], passes: Sequence[Pass], resting: Collection[nn.Parameter] = (), reduce: Reduce | None = None
    ) -> Outcome:
        """One pass."""
        clear(params)
        losses = torch.stack([run() for run in passes])
        if reduce is not None:
            reduce([losses, *(parameter.grad for parameter in params if parameter.grad is not None)])
        return Outcome(losses, {})


class Flat:
    """The parameters of a step as one vector of float32 or better, and its gradients."""

    def __init__(self, params: Sequence[nn.Parameter], resting: Collection[nn.Parameter], reduce: Reduce | None) -> None:
        self.params, self.reduce = params, reduce
        self.sizes = [parameter.numel() for parameter in params]
        self.reached = [False] * len(params)
        self.like = params[0].new_empty(0, dtype=torch.promote_types(params[0].dtype, torch.float32))
        still = set(resting)
        moves = torch.tensor([parameter not in still for parameter in params], device=self.like.device)
        self.moves = moves.repeat_interleave(torch.tensor(self.sizes, device=moves.device)) if still else None

    def gradients(self, passes: Sequence[Pass]) -> tuple[Float[Tensor, "passes numbers"], Float[Tensor, " passes"]]:
        """The gradient of each pass, and its loss."""
        found, losses = self.like.new_empty(len(passes), sum(self.sizes)), []
        clear(self.params)
        for run, row in zip(passes, found, strict=True):
            losses.append(run())
            self._take(row)
        values = torch.stack(losses)
        self._join(found, values)
        return found, values

    def gradient(self, passes: Sequence[Pass]) -> tuple[Float[Tensor, " numbers"], Float[Tensor, " passes"]]:
        """The gradient of the sum of all passes, and the loss of each. A pass may move the parameters before it runs."""
        found = self.like.new_empty(sum(self.sizes))
        clear(self.params)
        losses = torch.stack([run() for run in passes])
        self._take(found)
        self._join(found, losses)
        return found, losses

    def gradient_at(self, offset: Float[Tensor, " numbers"], passes: Sequence[Pass]) -> Float[Tensor, " numbers"]:
        """The gradient of the sum of all passes at theta + offset."""
        with self.perturbed() as place:
            place(offset)
            return self.gradient(passes)[0]

    def movable(self, vector: Float[Tensor, "... numbers"]) -> Float[Tensor, "... numbers"]:
        """A vector with zeros where parameters rest; the vector itself where none does."""
        return vector if self.moves is None else vector.where(self.moves, 0.0)

    def follow(self, direction: Float[Tensor, " numbers"]) -> None:
        """Sets p.grad; to None where no pass reached a parameter."""
        for parameter, part, reached in zip(self.params, direction.split(self.sizes), self.reached, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if reached else None

    @contextlib.contextmanager
    def perturbed(self) -> Iterator[Callable[[Tensor], None]]:
        """Inside, `place(offset)` puts the parameters at theta + offset; after it they are theta, bit for bit.

        They are put back from a copy, also when the block fails or is interrupted.
        """
        values = [parameter.detach() for parameter in self.params]  # in the memory of the parameters
        original = [value.clone() for value in values]

        def place(offset: Tensor) -> None:
            parts = [part.view_as(value) for part, value in zip(offset.split(self.sizes), values, strict=True)]
            torch._foreach_copy_(values, original)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(values, parts)  # pyright: ignore[reportPrivateImportUsage]

        try:
            yield place
        finally:
            torch._foreach_copy_(values, original)  # pyright: ignore[reportPrivateImportUsage]

    def _take(self, out: Tensor) -> None:
        """Takes p.grad away from the parameters; zeros where there is none."""
        parts = []
        for place, parameter in enumerate(self.params):
            self.reached[place] |= parameter.grad is not None
            parts.append((torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).detach().flatten().to(out.dtype))
        clear(self.params)
        torch.cat(parts, out=out)

    def _join(self, *tensors: Tensor) -> None:
        if self.reduce is not None:
            self.reduce(list(tensors))


def clear(params: Sequence[nn.Parameter]) -> None:
    """Drops what p.grad holds."""
    for parameter in params:
        parameter.grad = None


def norm(vector: Tensor) -> Float[Tensor, ""]:
    """Euclidean norm, never quite zero."""
    return torch.linalg.vector_norm(vector) + TINY


def cosine(one: Float[Tensor, " numbers"], other: Float[Tensor, " numbers"]) -> Float[Tensor, ""]:
    """Cosine between two vectors, without a copy of either; 0 where one of them is zero."""
    return one @ other / (norm(one) * norm(other))


def in_range(**settings: float) -> None:
    """Refuses a setting of a wrapper that is no number of at least 0.

    Raises:
        InputError: such a setting.
    """
    for name, value in settings.items():
        if isinstance(value, str) or not 0 <= value < math.inf:
            raise InputError(f"wrapper.{name}={value} is out of range", "give a number of at least 0")
