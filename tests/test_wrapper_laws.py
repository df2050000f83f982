"""Every optimizer wrapper follows its formula, and the laws that connect the wrappers."""

import functools
import itertools
import math
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper, Pass
from tests.wrappers import (
    BACKBONE,
    NAMES,
    WHOLE,
    WRAPPERS,
    Problem,
    close,
    direction,
    every_perturbing_wrapper,
    every_wrapper,
    flat,
    grads,
)


@pytest.mark.parametrize("sizes", [(4,), (3, 5, 8)], ids=str)
@every_wrapper
def test_the_direction_is_that_of_the_formula(
    wrapper: OptimizerWrapper, sizes: tuple[int, ...]
) -> None:
    problem = Problem(*sizes)
    close(problem.follow(wrapper), problem.expected(wrapper))


def test_the_directions_differ() -> None:
    """Or the test above would show little."""
    problem = Problem(3, 5, 8)
    found = [
        problem.follow(wrapper)
        for wrapper in [*WRAPPERS, RoGA(0.3, 0.1, 1e12), RoGA(0.3, 0.0, 2.0)]
    ]
    assert min((one - two).norm() for one, two in itertools.combinations(found, 2)) > 1e-4


def test_erm_is_the_gradient_of_the_sum_of_the_passes() -> None:
    problem = Problem(3, 5, 8)
    outcome = ERM()(problem.params, problem.passes(), head=problem.head)
    found = grads(problem.params)
    losses = torch.stack([problem.loss(problem.model, place) for place in range(3)])
    close(found, flat(torch.autograd.grad(losses.sum(), problem.params)))
    close(outcome.losses, losses.detach())
    assert problem.calls == [1, 1, 1]


HOW = [{}, {"perturb": "all"}, {"adaptive": True}, {"adaptive": True, "perturb": "all", "eta": 0.1}]
"""The ways to perturb; the laws hold for each."""

every_way = pytest.mark.parametrize(
    "how", HOW, ids=["backbone", "whole", "adaptive", "adaptive-whole"]
)


@every_way
@pytest.mark.parametrize("sizes", [(4,), (3, 5, 8, 2)], ids=str)
@pytest.mark.parametrize(
    "wrapper",
    [
        SAM(0.0),
        SAGM(0.0, 0.0),
        *(
            RoGA(0.0, 0.0, gamma, evaluate)
            for gamma in (0.0, 5.0, 1e12)
            for evaluate in ("own", "all")
        ),
    ],  # pyright: ignore
    ids=str,
)
def test_without_perturbation_all_is_erm(
    wrapper: Any, sizes: tuple[int, ...], how: dict[str, Any]
) -> None:
    problem = Problem(*sizes)
    close(problem.follow(replace(wrapper, **how)), problem.follow(ERM()))


@every_way
@pytest.mark.parametrize("evaluate", ["own", "all"])
def test_roga_on_one_domain_is_sagm_or_sam_and_without_gamma_erm(
    evaluate: Any, how: dict[str, Any]
) -> None:
    problem = Problem(7)
    close(
        problem.follow(RoGA(0.3, 0.1, 1.0, evaluate, **how)), problem.follow(SAGM(0.3, 0.1, **how))
    )
    close(problem.follow(RoGA(0.3, 0.0, 1e12, evaluate, **how)), problem.follow(SAM(0.3, **how)))
    several = Problem(3, 5, 8)
    close(several.follow(RoGA(0.3, 0.1, 0.0, evaluate, **how)), several.follow(ERM()))


@pytest.mark.parametrize(
    ("backbone", "whole"), list(zip(BACKBONE, WHOLE, strict=True)), ids=NAMES[1:5]
)
def test_a_head_that_is_left_in_place_is_one_that_rests(
    backbone: OptimizerWrapper, whole: OptimizerWrapper
) -> None:
    """Bit for bit; and where nothing trainable is the head's, the whole is perturbed."""
    problem = Problem(3, 5, 8)
    found = problem.follow(backbone)
    whole(problem.params, problem.passes(), problem.head)
    assert torch.equal(grads(problem.params), found)
    every = problem.follow(whole)
    assert not torch.equal(every, found)
    for wrapper, head in (
        (whole, None),
        (backbone, []),
        (backbone, list(nn.Linear(2, 2).parameters())),
    ):
        wrapper(problem.params, problem.passes(), head=head)
        assert torch.equal(grads(problem.params), every)


@every_perturbing_wrapper
def test_the_length_of_the_perturbation_is_that_of_the_perturbed_set(wrapper: Any) -> None:
    """Whatever the head's gradient: rho, measured after a division by T where the ascent is
    adaptive.
    """
    problem = Problem(9)
    theta, points = problem.theta, []

    def run() -> Tensor:
        points.append(problem.theta)
        loss = problem.loss(problem.model, 0)
        loss.backward()
        return loss.detach()

    wrapper = replace(wrapper, **({} if isinstance(wrapper, SAM) else {"alpha": 0.0}))
    wrapper(problem.params, [run], head=problem.head)
    scales = theta.abs() + wrapper.eta if wrapper.adaptive else torch.ones_like(theta)
    assert ((points[1] - theta) / scales).norm().item() == pytest.approx(0.3)
    assert torch.equal((points[1] - theta)[-7:], torch.zeros(7).double()) == (
        wrapper.perturb == "backbone"
    )


def test_an_adaptive_ascent_does_not_depend_on_how_a_product_is_split_into_factors() -> None:
    """A matrix as U diag(s) V^T with (U c, s / c) for (U, s): the same outputs at the ascending
    points, which a plain ball does not give.
    """
    torch.manual_seed(0)
    u, s, v = torch.randn(6, 2).double(), torch.rand(2).double() + 0.1, torch.randn(5, 2).double()
    head = nn.Parameter(torch.randn(6).double())
    inputs, label = torch.randn(3, 8, 5).double(), torch.randint(0, 2, (3, 8)).double()

    def found(wrapper: OptimizerWrapper, c: float) -> tuple[Tensor, list[Tensor]]:
        """The losses at all ascending points, and the gradients of U and s in units of c = 1."""
        params = [nn.Parameter(u * c), nn.Parameter(s / c), nn.Parameter(v.clone()), head]
        losses = []

        def run(place: int) -> Tensor:
            logits = ((inputs[place] @ params[2]) * params[1]) @ params[0].T @ head
            loss = functional.binary_cross_entropy_with_logits(logits, label[place]) / 3
            loss.backward()
            losses.append(loss.detach())
            return loss.detach()

        wrapper(params, [functools.partial(run, place) for place in range(3)], head=[head])
        return torch.stack(losses[3:]), [
            params[0].grad * c,
            params[1].grad / c,
            params[2].grad,
            head.grad,
        ]  # pyright: ignore

    for make in (
        functools.partial(SAM, 0.3),
        functools.partial(SAGM, 0.3, 0.0),
        functools.partial(RoGA, 0.3, 0.0),
        functools.partial(RoGA, 0.3, 0.0, 1.0, "all"),
    ):
        one, two = (found(make(adaptive=True), c) for c in (1.0, 7.0))
        close(one[0], two[0])
        for first, second in zip(one[1], two[1], strict=True):
            close(first, second)
        plain = [found(make(), c)[0] for c in (1.0, 7.0)]
        assert (plain[0] - plain[1]).abs().max() > 1e-2


@every_wrapper
def test_the_order_of_the_domains_does_not_matter(wrapper: OptimizerWrapper) -> None:
    """It would if a domain's ascending point used the gradients of earlier domains too."""
    problem = Problem(3, 5, 8)
    first = problem.follow(wrapper)
    for order in itertools.permutations(range(3)):
        close(problem.follow(wrapper, order), first)


@pytest.mark.parametrize(
    "wrapper", [RoGA(0.3, 0.1), RoGA(0.3, 0.1, perturb="all")], ids=["backbone", "whole"]
)
def test_each_domain_is_evaluated_at_its_own_ascending_point(wrapper: OptimizerWrapper) -> None:
    problem = Problem(3, 5, 8)
    theta, points = problem.theta, []
    g = [problem.moves(wrapper) * problem.gradient(theta, place) for place in range(3)]

    def watched(run: Pass) -> Pass:
        def look() -> Tensor:
            points.append(problem.theta)
            return run()

        return look

    wrapper(problem.params, [watched(run) for run in problem.passes()], head=problem.head)
    for point in points[:3]:
        assert torch.equal(point, theta)
    for point, own in zip(points[3:], g, strict=True):
        close(point, theta + 0.3 * own / own.norm() - 0.1 * sum(g))


@every_wrapper
def test_a_quadratic_loss_gives_the_closed_form(wrapper: OptimizerWrapper) -> None:
    """L_i = (theta - c_i)^T A_i (theta - c_i) / 2, so that grad L_i = A_i (theta - c_i)."""
    roots, centres, theta = (
        torch.randn(3, 4, 4).double(),
        torch.randn(3, 4).double(),
        torch.randn(4).double(),
    )
    matrices = roots @ roots.mT
    params = [nn.Parameter(theta[:1].clone()), nn.Parameter(theta[1:].view(3, 1).clone())]
    moves = torch.tensor([0.0 if wrapper.perturb == "backbone" else 1.0, 1.0, 1.0, 1.0]).double()

    def run(place: int) -> Tensor:
        away = flat(params) - centres[place]
        loss = away @ matrices[place] @ away / 2
        loss.backward()
        return loss.detach()

    outcome = wrapper(
        params, [functools.partial(run, place) for place in range(3)], head=params[:1]
    )
    close(
        grads(params),
        direction(
            wrapper,
            theta,
            lambda point, place: matrices[place] @ (point - centres[place]),
            3,
            moves,
        ),
    )
    close(
        outcome.losses,
        torch.stack(
            [(theta - c) @ a @ (theta - c) / 2 for a, c in zip(matrices, centres, strict=True)]
        ),
    )


@pytest.mark.parametrize(
    ("wrapper", "calls"), list(zip(WRAPPERS, (1, *(2, 2, 2, 4) * 3, 2), strict=True)), ids=NAMES
)
def test_a_step_costs_so_many_passes(wrapper: OptimizerWrapper, calls: int) -> None:
    """Evaluating all domains at the points of all three costs 1 + 3 passes over the batch."""
    problem = Problem(3, 5, 8)
    problem.follow(wrapper)
    assert problem.calls == [calls] * 3


def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in [
        (SAM, "rho"),
        (SAGM, "rho"),
        (SAGM, "alpha"),
        (RoGA, "rho"),
        (RoGA, "alpha"),
        (RoGA, "gamma"),
    ]:
        for value in (-0.1, math.nan, math.inf, -math.inf):
            with pytest.raises(
                InputError,
                match=rf"wrapper\.{name}={value} is out of range; give at least 0",
            ):
                kind(**{name: value})
    # the tests' type checker would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for kind in (SAM, SAGM, RoGA):
        with pytest.raises(InputError, match=r"wrapper\.warmup_epochs=-1"):
            kind(warmup_epochs=-1)
        with pytest.raises(InputError, match=r"wrapper\.eta=-1 is out of range"):
            kind(adaptive=True, eta=-1)
        with pytest.raises(
            InputError,
            match=(
                r"wrapper\.eta=0\.1 has no effect on an ascent that is not adaptive; set "
                r"wrapper\.adaptive=true"
            ),
        ):
            kind(eta=0.1)
        for perturb in ("none", "head"):
            with pytest.raises(
                InputError,
                match=rf"wrapper\.perturb={perturb} is unknown; choose one of backbone, all",
            ):
                kind(perturb=perturb)  # pyright: ignore
    with pytest.raises(
        InputError, match=r"wrapper\.evaluate=both is unknown; choose one of own, all"
    ):
        RoGA(evaluate="both")  # pyright: ignore


@every_perturbing_wrapper
def test_a_head_that_nobody_names_and_a_head_alone_are_refused(wrapper: OptimizerWrapper) -> None:
    """Rather than perturbed, or left out with nothing else there."""
    problem = Problem(3, 5)
    for params, head, said in (
        (
            problem.params,
            None,
            r"leaves out the head, and its parameters are not named; pass them as "
            r"head=\.\.\., or perturb the head as well",
        ),
        (
            problem.head,
            problem.head,
            "leaves nothing to perturb, for only the head is trainable; take wrapper=erm, "
            "wrapper.perturb=all",
        ),
    ):
        if wrapper.perturb == "all":
            assert wrapper(params, problem.passes(), head=head).losses.isfinite().all()
        else:
            with pytest.raises(InputError, match=said):
                wrapper(params, problem.passes(), head=head)


@every_wrapper
def test_a_gradient_of_zeros_stays_one(wrapper: OptimizerWrapper) -> None:
    parameter = nn.Parameter(torch.ones(3))

    def run() -> Tensor:
        loss = (0 * parameter).sum()
        loss.backward()
        return loss.detach()

    outcome = wrapper([parameter], [run, run], head=[])
    assert torch.equal(parameter.grad, torch.zeros(3))  # pyright: ignore
    assert all(value.isfinite() for value in outcome.diagnostics.values())
