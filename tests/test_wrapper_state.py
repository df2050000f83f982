"""A wrapper leaves parameters as they were, and gives each its own gradient."""

import copy
import functools
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from fmsd.optim.erm import ERM
from fmsd.optim.wrapper import OptimizerWrapper, Pass
from tests.wrappers import Problem, bits, close, direction, every_wrapper, flat, grads

SPECIAL = [1.0, -0.0, 0.0, 1e-40, -1e-40, math.inf, -math.inf, math.nan, 3.0, 1 / 3]


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@every_wrapper
def test_parameters_are_restored_bit_for_bit(
    wrapper: OptimizerWrapper, dtype: torch.dtype, failure: type[BaseException] | None
) -> None:
    """After a call, and if a pass raises at the parameters (1, 2) or at perturbed ones (3, 4)."""
    params = [
        nn.Parameter(torch.tensor(SPECIAL, dtype=dtype)),
        nn.Parameter(torch.randn(5, 3).to(dtype)),
    ]
    before, moved = bits(params), []
    for fails in (1, 2, 3, 4) if failure else (0,):
        calls = itertools.count(1)

        def run(weight: float, calls: itertools.count = calls, fails: int = fails) -> Tensor:
            moved.append(bits(params) != before)
            finite = params[0].where(params[0].isfinite(), 0)
            loss = ((finite - weight).square().sum() + (params[1] * weight).sin().sum()) / 9
            if next(calls) == fails:
                raise failure  # pyright: ignore
            loss.backward()
            return loss.detach()

        passes = [functools.partial(run, 1.0), functools.partial(run, 2.0)]
        if failure and not (fails > 2 and isinstance(wrapper, ERM)):
            with pytest.raises(failure):
                wrapper(params, passes, head=params[:1])
        else:
            wrapper(params, passes, head=params[:1])
            assert [parameter.grad.dtype for parameter in params if parameter.grad is not None] == [
                dtype
            ] * 2
        assert bits(params) == before
    assert any(moved) == (not isinstance(wrapper, ERM))


@every_wrapper
def test_gradients_of_before_are_dropped(wrapper: OptimizerWrapper) -> None:
    problem = Problem(3, 5)
    expected = problem.expected(wrapper)
    problem.follow(wrapper)
    for parameter in problem.params:
        parameter.grad = torch.full_like(parameter, 100.0)
    close(problem.follow(wrapper), expected)


class Parts(nn.Module):
    """Of its four weights one is reached by both domains, one by the second alone, one by none; one
    is frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.both, self.second, self.none, self.frozen = (
            nn.Parameter(torch.randn(4).double()) for _ in range(4)
        )
        self.frozen.requires_grad_(False)

    def losses(self) -> list[Tensor]:
        x = self.both * self.frozen
        return [x.exp().mean(), (x + self.second).cos().mean()]


@every_wrapper
def test_what_no_pass_reaches_has_no_gradient_and_what_one_reaches_has_its_own(
    wrapper: OptimizerWrapper,
) -> None:
    model = Parts()
    start, seen = copy.deepcopy(model), []

    def run(place: int) -> Tensor:
        seen.append(bits([model.none, model.frozen]))
        loss = model.losses()[place]
        loss.backward()
        return loss.detach()

    def gradient(theta: Tensor, place: int) -> Tensor:
        other = copy.deepcopy(start)
        other.both.data, other.second.data = theta.split(4)
        found = torch.autograd.grad(
            other.losses()[place], [other.both, other.second], allow_unused=True
        )
        return flat([torch.zeros(4).double() if part is None else part for part in found])

    model.none.grad = torch.ones(4).double()
    wrapper(
        [model.both, model.second, model.none],
        [functools.partial(run, 0), functools.partial(run, 1)],
        head=[model.second],
    )
    assert model.none.grad is None
    assert model.frozen.grad is None
    assert seen == [bits([start.none, start.frozen])] * len(seen)
    assert bits(list(model.parameters())) == bits(list(start.parameters()))
    moves = (
        torch.tensor([1.0, 0.0 if wrapper.perturb == "backbone" else 1.0])
        .double()
        .repeat_interleave(4)
    )
    close(
        grads([model.both, model.second]),
        direction(wrapper, flat([start.both, start.second]).detach(), gradient, 2, moves),
    )


@every_wrapper
def test_inactive_parameters_get_a_gradient_and_are_not_moved(wrapper: OptimizerWrapper) -> None:
    problem = Problem(3, 5, 8)
    inactive = [problem.params[0], problem.params[3]]
    expected = problem.expected(wrapper, inactive)
    before, others, seen = bits(inactive), bits(problem.params[1:3]), []

    def watched(run: Pass) -> Pass:
        def look() -> Tensor:
            assert bits(inactive) == before
            seen.append(bits(problem.params[1:3]) != others)
            return run()

        return look

    wrapper(problem.params, [watched(run) for run in problem.passes()], inactive, head=problem.head)
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in inactive)
    close(grads(problem.params), expected)
    assert seen == [False] * 3 + [True] * (len(seen) - 3)
