"""The wrappers under test, and a problem with a naive version of their formulas."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper, Pass

Gradient = Callable[[Tensor, int], Tensor]
"""Of the part of the loss that one pass has, at a vector of parameters."""

BACKBONE = [SAM(0.3), SAGM(0.3, 0.1), RoGA(0.3, 0.1, 2.0), RoGA(0.3, 0.1, 2.0, evaluate="all")]
"""Those that leave the head where it is, as they do by default."""

WHOLE = [replace(wrapper, perturb="all") for wrapper in BACKBONE]

ADAPTIVE = [
    replace(wrapper, adaptive=True, eta=eta)
    for wrapper, eta in zip([*BACKBONE, WHOLE[2]], (0.0, 0.1, 0.0, 0.1, 0.0), strict=True)
]

WRAPPERS = [ERM(), *BACKBONE, *WHOLE, *ADAPTIVE]

NAMES = ["erm", "sam", "sagm", "own", "all"]
NAMES += [f"{name}-whole" for name in NAMES[1:]] + [
    f"{name}-adaptive" for name in (*NAMES[1:], "own-whole")
]

every_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS, ids=NAMES)

every_perturbing_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS[1:], ids=NAMES[1:])


def direction(
    wrapper: OptimizerWrapper,
    theta: Tensor,
    gradient: Gradient,
    passes: int,
    moves: Tensor | float = 1.0,
) -> Tensor:
    """What a wrapper follows by its formula. `moves` is 0 where a parameter is not perturbed."""

    def up(g: Tensor) -> Tensor:
        t = theta.abs() + wrapper.eta if wrapper.adaptive else 1.0  # pyright: ignore
        return wrapper.rho * t * t * moves * g / (t * moves * g).norm()  # pyright: ignore

    def whole(point: Tensor) -> Tensor:
        return torch.stack([gradient(point, i) for i in range(passes)]).sum(0)

    g = whole(theta)
    if isinstance(wrapper, SAM):
        return whole(theta + up(g))
    if isinstance(wrapper, SAGM):
        return (g + whole(theta + up(g) - wrapper.alpha * moves * g)) / 2
    if isinstance(wrapper, RoGA):
        aligned = torch.zeros_like(g)
        for i in range(passes):
            point = theta + up(gradient(theta, i)) - wrapper.alpha * moves * g
            aligned += gradient(point, i) if wrapper.evaluate == "own" else whole(point) / passes
        return (g + wrapper.gamma * aligned) / (1 + wrapper.gamma)
    return g


class Problem:
    """A small network on frames of some domains of given sizes; the losses of its passes add up to
    the mean over all frames.
    """

    def __init__(self, *sizes: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        self.params = list(self.model.parameters())
        self.head = list(self.model[2].parameters())
        self.data = [
            (
                torch.randn(size, 5, generator=generator).double() + place,
                torch.randint(0, 2, (size, 1), generator=generator).double(),
            )
            for place, size in enumerate(sizes)
        ]
        self.calls = [0] * len(sizes)

    def loss(self, model: Callable[[Tensor], Tensor], place: int) -> Tensor:
        inputs, label = self.data[place]
        return functional.binary_cross_entropy_with_logits(
            model(inputs), label, reduction="sum"
        ) / sum(len(label) for _, label in self.data)

    def passes(self) -> list[Pass]:
        def one(place: int) -> Tensor:
            self.calls[place] += 1
            loss = self.loss(self.model, place)
            loss.backward()
            return loss.detach()

        return [functools.partial(one, place) for place in range(len(self.data))]

    @property
    def theta(self) -> Tensor:
        return flat(self.params).detach().clone()

    def loss_at(self, theta: Tensor, place: int) -> Tensor:
        parts = theta.split([parameter.numel() for parameter in self.params])
        named = {
            name: part.view_as(value)
            for (name, value), part in zip(self.model.named_parameters(), parts, strict=True)
        }
        return self.loss(lambda inputs: functional_call(self.model, named, inputs), place)

    def gradient(self, theta: Tensor, place: int) -> Tensor:
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(self.loss_at(theta, place), theta)[0]

    def follow(self, wrapper: OptimizerWrapper, order: Sequence[int] | None = None) -> Tensor:
        """What the wrapper leaves in p.grad."""
        passes = self.passes()
        wrapper(
            self.params,
            passes if order is None else [passes[place] for place in order],
            head=self.head,
        )
        return grads(self.params)

    def moves(self, wrapper: OptimizerWrapper, inactive: Sequence[nn.Parameter] = ()) -> Tensor:
        """1 where a number is perturbed, else 0."""
        still = {*inactive, *(self.head if wrapper.perturb == "backbone" else ())}
        return flat(
            [torch.full_like(parameter, float(parameter not in still)) for parameter in self.params]
        ).detach()

    def expected(self, wrapper: OptimizerWrapper, inactive: Sequence[nn.Parameter] = ()) -> Tensor:
        return direction(
            wrapper, self.theta, self.gradient, len(self.data), self.moves(wrapper, inactive)
        )


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def grads(params: Sequence[nn.Parameter]) -> Tensor:
    return flat([parameter.grad for parameter in params if parameter.grad is not None])


def bits(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Tells -0.0 from 0.0, and finds nan equal to itself."""
    return [
        tensor.detach()
        .view({8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()])
        .flatten()
        .tolist()
        for tensor in tensors
    ]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
