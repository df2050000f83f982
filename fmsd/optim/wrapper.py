"""Which gradient the wrapped optimizer follows. A wrapper is a frozen value without state; the optimizer stays plain torch."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fmsd.errors import InputError

Pass = Callable[[], Tensor]
"""A forward and a backward pass: adds a loss's gradient to p.grad and returns the loss, detached.

It may be called several times at different parameters, and then sees the same input and the same
random numbers.
"""

Reduce = Callable[[list[Tensor]], None]
"""Sums tensors over all processes, in place and in one go."""

Perturb = Literal["backbone", "all", "none"]
"""Which trainable parameters a wrapper perturbs: those outside of the head, all, or none."""

TINY = 1e-12
"""Keeps the direction of a gradient of zeros finite."""

COSINE = "cosine_aligned"
"""Cosine between the gradient at the parameters and the one at the perturbed parameters."""

DOMAINS = "cosine_domains"
"""Mean cosine between the gradients of two domains."""

DESCENT = "descent_per_ascent"
"""How far an ascending point is shifted down, as a share of how far it lies up; above 1 it is no ascending point. See `descent_per_ascent`."""

HEAD_SHARE = "head_gradient_share"
"""The head's share of the squared norm of the gradient at the parameters."""

PERTURBED_LOSS = "perturbed_loss"
"""The loss at the perturbed parameters, to hold against the loss at the parameters; the mean over several perturbed points."""


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

    The losses of all passes add up to the loss of the step. `by_domain` says whether a wrapper
    wants one pass for each forgery domain instead of a single one, `warmup_epochs` for how many
    epochs plain `ERM` takes its place, `perturb` which parameters it perturbs.
    """

    by_domain: ClassVar[bool]

    @property
    def warmup_epochs(self) -> int:
        """See the class."""
        ...

    @property
    def perturb(self) -> Perturb:
        """See the class."""
        ...

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        resting: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> Outcome:
        """Sets p.grad of `params`; what it held before is dropped, and what no pass reaches has None.

        Args:
            params: everything that the passes give a gradient.
            passes: one per domain, or a single one.
            resting: parameters that must not move now; they get a gradient and are not perturbed.
            reduce: joins the gradients of several processes; called once for all gradients at the
                parameters and once for those at perturbed ones.
            head: the parameters of the classifier; with perturb="backbone" they get a gradient, are
                not perturbed and do not count in the length of a perturbation. None where nobody
                knows them, which perturb="backbone" refuses.
        """
        ...


@dataclass(frozen=True, slots=True)
class ERM:
    """Empirical risk minimisation: the gradient of the loss. The plain training step."""

    warmup_epochs: int = field(default=0, init=False)
    perturb: Perturb = field(default="none", init=False)
    by_domain: ClassVar[bool] = False

    def __call__(
        self,
        params: Sequence[nn.Parameter],
        passes: Sequence[Pass],
        resting: Collection[nn.Parameter] = (),
        reduce: Reduce | None = None,
        head: Collection[nn.Parameter] | None = None,
    ) -> Outcome:
        """One pass."""
        clear_gradients(params)
        losses = torch.stack([run() for run in passes])
        if reduce is not None:
            reduce([losses, *existing_gradients(params)])
        return Outcome(
            losses,
            {}
            if head is None
            else {HEAD_SHARE: norm_share(existing_gradients(head), existing_gradients(params))},
        )


class Flat:
    """The parameters of a step as one vector of float32 or better, and its gradients.

    Args:
        params, resting, reduce, head: what the wrapper was called with.
        perturb: the wrapper's own.

    Raises:
        InputError: see `check_head`.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        resting: Collection[nn.Parameter],
        reduce: Reduce | None,
        head: Collection[nn.Parameter] | None,
        perturb: Perturb,
    ) -> None:
        check_head(perturb, params, head)
        self.params, self.reduce = params, reduce
        self.sizes = [parameter.numel() for parameter in params]
        self.reached = [False] * len(params)
        self.like = params[0].new_empty(
            0, dtype=torch.promote_types(params[0].dtype, torch.float32)
        )
        self.head = None if head is None else set(head)
        still = {*resting, *(head or () if perturb == "backbone" else ())}
        self.still = [parameter in still for parameter in params]

    def gradients(
        self, passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, "passes numbers"], Float[Tensor, " passes"]]:
        """The gradient of each pass, and its loss."""
        found, losses = self.like.new_empty(len(passes), sum(self.sizes)), []
        clear_gradients(self.params)
        for run, row in zip(passes, found, strict=True):
            losses.append(run())
            self._take(row)
        values = torch.stack(losses)
        self._join(found, values)
        return found, values

    def gradient(
        self, passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, " numbers"], Float[Tensor, " passes"]]:
        """The gradient of the sum of all passes, and the loss of each. A pass may move the parameters before it runs."""
        found = self.like.new_empty(sum(self.sizes))
        clear_gradients(self.params)
        losses = torch.stack([run() for run in passes])
        self._take(found)
        self._join(found, losses)
        return found, losses

    def gradient_at(
        self, offset: Float[Tensor, " numbers"], passes: Sequence[Pass]
    ) -> tuple[Float[Tensor, " numbers"], Float[Tensor, " passes"]]:
        """The gradient of the sum of all passes at theta + offset, and the loss of each."""
        with self.perturbed() as place:
            place(offset)
            return self.gradient(passes)

    def movable(self, vector: Float[Tensor, " numbers"]) -> Float[Tensor, " numbers"]:
        """A vector with zeros where parameters are not perturbed; the vector itself where all are."""
        if not any(self.still):
            return vector
        moved = vector.clone()
        still = [
            part for part, rests in zip(moved.split(self.sizes), self.still, strict=True) if rests
        ]
        torch._foreach_zero_(still)  # pyright: ignore[reportPrivateImportUsage]
        return moved

    def scales(self, eta: float) -> Float[Tensor, " numbers"]:
        """T = |theta| + eta, by which an adaptive ascent measures lengths; of all parameters, vectors and biases as matrices."""
        return (
            torch.cat(
                [parameter.detach().flatten().to(self.like.dtype) for parameter in self.params]
            )
            .abs()
            .add_(eta)
        )

    def head_share(self, gradient: Float[Tensor, " numbers"]) -> dict[str, Tensor]:
        """The diagnostic `HEAD_SHARE` of a gradient; none where the head is unknown."""
        if self.head is None:
            return {}
        inside = self.head
        parts = [
            part
            for parameter, part in zip(self.params, gradient.split(self.sizes), strict=True)
            if parameter in inside
        ]
        return {HEAD_SHARE: norm_share(parts, [gradient])}

    def follow(self, direction: Float[Tensor, " numbers"]) -> None:
        """Sets p.grad; to None where no pass reached a parameter."""
        for parameter, part, reached in zip(
            self.params, direction.split(self.sizes), self.reached, strict=True
        ):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if reached else None

    @contextlib.contextmanager
    def perturbed(self) -> Iterator[Callable[[Tensor], None]]:
        """Inside, `place(offset)` puts the parameters at theta + offset; after it they are theta, bit for bit.

        They are put back from a copy, also when the block fails or is interrupted.
        """
        values = [
            parameter.detach() for parameter in self.params
        ]  # in the memory of the parameters
        original = [value.clone() for value in values]

        def place(offset: Tensor) -> None:
            parts = [
                part.view_as(value)
                for part, value in zip(offset.split(self.sizes), values, strict=True)
            ]
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
            parts.append(
                (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
                .detach()
                .flatten()
                .to(out.dtype)
            )
        clear_gradients(self.params)
        torch.cat(parts, out=out)

    def _join(self, *tensors: Tensor) -> None:
        if self.reduce is not None:
            self.reduce(list(tensors))


def clear_gradients(params: Sequence[nn.Parameter]) -> None:
    """Drops what p.grad holds."""
    for parameter in params:
        parameter.grad = None


def existing_gradients(params: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients that there are."""
    return [parameter.grad for parameter in params if parameter.grad is not None]


def vector_norm(vector: Tensor) -> Float[Tensor, ""]:
    """Euclidean norm, never quite zero."""
    return torch.linalg.vector_norm(vector) + TINY


def cosine_similarity(
    one: Float[Tensor, " numbers"], other: Float[Tensor, " numbers"]
) -> Float[Tensor, ""]:
    """Cosine between two vectors, without a copy of either; 0 where one of them is zero."""
    return one @ other / (vector_norm(one) * vector_norm(other))


def norm_share(parts: Sequence[Tensor], whole: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The share of some tensors in the squared norm of all; 0 where that is zero."""
    return (nn.utils.get_total_norm(parts) / (nn.utils.get_total_norm(whole) + TINY)) ** 2


def ascent_scale(
    gradient: Float[Tensor, " numbers"], rho: float, scales: Float[Tensor, " numbers"] | None = None
) -> Tensor:
    """What a gradient g is multiplied by for an ascent over the distance rho: rho / ||g||, or adaptively rho T^2 / ||T g||.

    Args:
        gradient: zeros where parameters are not perturbed.
        rho: the distance, Euclidean or after a division by T.
        scales: T of an adaptive ascent, see `Flat.scales`. With T = |theta| the point has the same
            outputs when two factors whose product matters are rescaled, one by c and the other by 1
            / c.
    """
    return (
        rho / vector_norm(gradient)
        if scales is None
        else scales.square() * (rho / vector_norm(scales * gradient))
    )


def descent_per_ascent(
    gradient: Float[Tensor, " numbers"],
    rho: float,
    alpha: float,
    scales: Float[Tensor, " numbers"] | None = None,
) -> dict[str, Tensor]:
    """The diagnostic `DESCENT` of a point theta + ascent - alpha g; none where rho is 0.

    It is alpha ||g|| / rho, and alpha ||g||^2 / (rho ||T g||) for an adaptive ascent: what the
    shift takes from the loss, to first order, as a share of what the ascent adds.
    """
    if not rho:
        return {}
    length = vector_norm(gradient)
    return {
        DESCENT: alpha * length / rho
        if scales is None
        else alpha * length**2 / (rho * vector_norm(scales * gradient))
    }


def check_head(
    perturb: Perturb, params: Collection[nn.Parameter], head: Collection[nn.Parameter] | None
) -> None:
    """Refuses to perturb the backbone alone where nobody says what the head is, or where nothing else is trainable.

    Raises:
        InputError: such a case.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """The settings of a perturbation that SAM, SAGM and RoGA share.

    Args:
        perturb: the `backbone`, whose trainable parameters are perturbed while the head's stay, or
            `all` that is trainable.
        adaptive: climb by rho T^2 g / ||T g|| with T = |theta| + eta (ASAM, Kwon et al., ICML 2021,
            arXiv 2102.11600). T is taken of every parameter, of vectors and biases as of matrices:
            singular values are vectors, and without them the ascent would depend on how a product
            is split into factors. With eta = 0 a parameter that is exactly 0 is not perturbed.
        eta: added to |theta| in an adaptive ascent, at least 0.
    """

    perturb: Literal["backbone", "all"] = "backbone"
    adaptive: bool = False
    eta: float = 0.0

    def check(self, rho: float) -> None:
        """Refuses settings of a perturbation of length rho that are unknown, out of range or without effect.

        Raises:
            InputError: such a setting.
        """
        check_nonnegative(rho=rho, eta=self.eta)
        if self.perturb not in ("backbone", "all"):
            raise InputError(f"wrapper.perturb={self.perturb} is unknown", "choose backbone or all")
        if self.eta and not self.adaptive:
            raise InputError(
                f"wrapper.eta={self.eta} has no effect on an ascent that is not adaptive",
                "set wrapper.adaptive=true, or leave out wrapper.eta",
            )

    def scales(self, flat: Flat) -> Float[Tensor, " numbers"] | None:
        """T of every parameter; None where the ascent is not adaptive."""
        return flat.scales(self.eta) if self.adaptive else None


def check_nonnegative(**settings: float) -> None:
    """Refuses a setting of a wrapper that is no number of at least 0.

    Raises:
        InputError: such a setting.
    """
    for name, value in settings.items():
        if isinstance(value, str) or not 0 <= value < math.inf:
            raise InputError(
                f"wrapper.{name}={value} is out of range", "give a number of at least 0"
            )
