"""Diagnostics of a wrapper's step, and the memory that the step takes."""

import functools
import itertools
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.wrapper import Pass
from tests.wrappers import Problem, close, every_wrapper


@every_wrapper
def test_diagnostics_are_those_of_their_definitions(wrapper: Any) -> None:
    problem = Problem(3, 5, 8)
    theta, moves, points = problem.theta, problem.moves(wrapper), []
    parts = [problem.gradient(theta, place) for place in range(3)]
    g = torch.stack(parts).sum(0)
    cosine = functools.partial(torch.cosine_similarity, dim=0)

    def watched(place: int, run: Pass) -> Pass:
        def look() -> Tensor:
            points.append((place, problem.theta))
            return run()

        return look

    outcome = wrapper(
        problem.params,
        [watched(place, run) for place, run in enumerate(problem.passes())],
        head=problem.head,
    )
    perturbed = [(place, point) for place, point in points if not torch.equal(point, theta)]
    runs = len(perturbed) / 3
    close(
        outcome.losses,
        torch.stack([problem.loss(problem.model, place) for place in range(3)]).detach(),
    )
    expected = {"head_gradient_share": g[-7:].square().sum() / g.square().sum()}
    if not isinstance(wrapper, ERM):
        expected["cosine_aligned"] = cosine(
            g, torch.stack([problem.gradient(point, place) for place, point in perturbed]).sum(0)
        )
        expected["perturbed_loss"] = (
            torch.stack([problem.loss_at(point, place) for place, point in perturbed]).sum() / runs
        )
    if isinstance(wrapper, SAGM | RoGA):
        down = moves * g
        scales = theta.abs() + wrapper.eta if wrapper.adaptive else 1.0
        ascent = 0.3 * scales**2 * down / (scales * down).norm()  # of the whole loss
        expected["descent_per_ascent"] = 0.1 * down @ down / (down @ ascent)
    if isinstance(wrapper, RoGA):
        expected["cosine_domains"] = torch.stack(
            [cosine(one, two) for one, two in itertools.combinations(parts, 2)]
        ).mean()
    assert outcome.diagnostics.keys() == expected.keys()
    for name, value in expected.items():
        close(outcome.diagnostics[name], value)


def test_diagnostics_that_say_nothing_are_left_out() -> None:
    """The descent of a point that does not ascend, the cosine of a single domain, the share of a
    head that nobody named.
    """
    problem, one = Problem(3, 5, 8), Problem(4)
    assert ERM()(problem.params, problem.passes()).diagnostics == {}
    found = RoGA(0.0)(problem.params, problem.passes(), head=problem.head)
    assert found.diagnostics.keys() == {
        "cosine_aligned",
        "cosine_domains",
        "perturbed_loss",
        "head_gradient_share",
    }
    found = RoGA(perturb="all")(one.params, one.passes())
    assert found.diagnostics.keys() == {"cosine_aligned", "descent_per_ascent", "perturbed_loss"}


def test_a_domain_without_a_gradient_has_a_cosine_of_zero() -> None:
    problem = Problem(3, 5)
    passes = [*problem.passes(), lambda: torch.zeros((), dtype=torch.float64)]
    cosine = torch.cosine_similarity(
        *(problem.gradient(problem.theta, place) for place in range(2)), dim=0
    )
    close(
        RoGA()(problem.params, passes, head=problem.head).diagnostics["cosine_domains"], cosine / 3
    )


class Memory(TorchDispatchMode):
    """Counts the bytes that tensors take while it is entered: those of every operation's results,
    until they are let go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.living: list[weakref.ref[torch.Tensor]] = []
        self.peak = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.living += [
            weakref.ref(tensor)
            for tensor in tree_leaves(result)
            if isinstance(tensor, torch.Tensor)
        ]
        self.living = [tensor for tensor in self.living if tensor() is not None]
        storages = [
            tensor.untyped_storage() for living in self.living if (tensor := living()) is not None
        ]
        self.peak = max(
            self.peak, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        )
        return result


def test_a_further_domain_costs_the_memory_of_one_gradient() -> None:
    """Its own; the cosine between the domains, which is only logged, takes none."""
    size, peaks = 10_000, []
    for count in (2, 4, 8):
        parameter, head = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(1))
        parts = torch.randn(count, size)

        def run(part: torch.Tensor, parameter: nn.Parameter = parameter) -> torch.Tensor:
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
            return torch.zeros(())

        passes = [functools.partial(run, part) for part in parts]
        with Memory() as memory:
            outcome = RoGA()([parameter, head], passes, head=[head])
        pairs = [
            torch.cosine_similarity(one, two, dim=0)
            for one, two in itertools.combinations(parts, 2)
        ]
        torch.testing.assert_close(
            outcome.diagnostics["cosine_domains"], torch.stack(pairs).mean(), rtol=1e-3, atol=1e-6
        )
        peaks.append(memory.peak / (4 * size))
    assert peaks[1] - peaks[0] == pytest.approx(2, abs=0.01)
    assert peaks[2] - peaks[1] == pytest.approx(4, abs=0.01)
