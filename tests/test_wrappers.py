"""Optimizer wrappers: the direction they leave in p.grad against their formulas written out, and
what they leave alone.
"""

import copy
import functools
import itertools
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import jaxtyping
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from fmsd.cli.main import main
from fmsd.engine.learner import Learner
from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.schedule import constant
from fmsd.optim.wrapper import OptimizerWrapper, Pass
from fmsd.peft.full import full
from fmsd.peft.masm import SubspaceMaskRule
from fmsd.peft.method import Method
from fmsd.peft.probe import probe
from fmsd.types import Frames
from tests.conftest import METHODS, grow_tree, tiny_vit
from tests.test_engine import build_learner, module, trainer
from tests.test_resume import TINY

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


# ---- the formulas, and a problem to hold against them


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
        return (
            aligned
            if math.isinf(wrapper.gamma)
            else (g + wrapper.gamma * aligned) / (1 + wrapper.gamma)
        )
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


# ---- formulas and laws


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
        for wrapper in [*WRAPPERS, RoGA(0.3, 0.1, math.inf), RoGA(0.3, 0.0, 2.0)]
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
            for gamma in (0.0, 5.0, math.inf)
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
    close(
        problem.follow(RoGA(0.3, 0.0, math.inf, evaluate, **how)), problem.follow(SAM(0.3, **how))
    )
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
        for value in (-0.1, math.nan, -math.inf):
            with pytest.raises(
                InputError,
                match=rf"wrapper\.{name}={value} is out of range; give a number of at least 0",
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
                InputError, match=rf"wrapper\.perturb={perturb} is unknown; choose backbone or all"
            ):
                kind(perturb=perturb)  # pyright: ignore
    with pytest.raises(InputError, match=r"wrapper\.evaluate=both is unknown; choose own or all"):
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


# ---- what a wrapper finds on its way


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


# ---- what a wrapper leaves alone

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


# ---- several processes


@pytest.mark.parametrize(
    ("wrapper", "count"), list(zip(WRAPPERS, (1, *[2] * 13), strict=True)), ids=NAMES
)
def test_gradients_are_joined_once_per_stage(wrapper: OptimizerWrapper, count: int) -> None:
    calls: list[int] = []
    problem = Problem(3, 5, 8)
    wrapper(
        problem.params,
        problem.passes(),
        reduce=lambda tensors: calls.append(len(tensors)),
        head=problem.head,
    )
    assert len(calls) == count


@pytest.mark.parametrize("lacking", [False, True], ids=["halves", "lacking"])
@every_wrapper
def test_two_processes_on_half_batches_equal_one_on_the_joint_batch(
    wrapper: OptimizerWrapper, lacking: bool
) -> None:
    """Also where the second process lacks the middle domain."""
    joint = Problem(4, 6, 2)
    barrier = Barrier(2, timeout=30)
    slots: list[list[Tensor]] = [[], []]

    def process(rank: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        own = copy.deepcopy(joint)

        def run(place: int) -> Tensor:
            rows = slice(6 * rank, None) if lacking and place == 1 else slice(rank, None, 2)
            inputs, label = (tensor[rows] for tensor in own.data[place])
            if not len(label):
                return torch.zeros((), dtype=torch.float64)
            loss = (
                functional.binary_cross_entropy_with_logits(
                    own.model(inputs), label, reduction="sum"
                )
                / 12
            )
            loss.backward()
            return loss.detach()

        def reduce(tensors: list[Tensor]) -> None:
            slots[rank] = [tensor.clone() for tensor in tensors]
            barrier.wait()
            sums = [one + two for one, two in zip(*slots, strict=True)]
            barrier.wait()
            for tensor, value in zip(tensors, sums, strict=True):
                tensor.copy_(value)

        outcome = wrapper(
            own.params,
            [functools.partial(run, place) for place in range(3)],
            reduce=reduce,
            head=own.head,
        )
        return grads(own.params), outcome.losses, dict(outcome.diagnostics)

    with ThreadPoolExecutor(2) as pool:
        (one, losses, diagnostics), (two, *_) = pool.map(process, range(2))
    assert torch.equal(one, two)
    outcome = wrapper(joint.params, joint.passes(), head=joint.head)
    close(one, grads(joint.params))
    close(losses, outcome.losses)
    assert diagnostics.keys() == outcome.diagnostics.keys()
    for name, value in diagnostics.items():
        close(value, outcome.diagnostics[name])


# ---- passes that can be repeated


def test_a_repetition_sees_the_dropout_of_the_first_time_and_the_next_step_another_one() -> None:
    model, masks = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), []
    model[1].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))

    def run() -> Tensor:
        loss = model(torch.ones(4, 8)).sum()
        loss.backward()
        return loss.detach()

    for _ in range(2):
        RoGA(0.1)(
            list(model.parameters()), [Repeatable(run, model), Repeatable(run, model)], head=[]
        )
    one, two, again, same = masks[:4]
    assert torch.equal(one, again)
    assert torch.equal(two, same)
    assert not torch.equal(one, two)
    assert not any(torch.equal(masks[4], mask) for mask in masks[:4])


@pytest.mark.parametrize("momentum", [0.1, None])
@every_wrapper
def test_batch_norm_statistics_move_in_the_first_pass_only_and_repetitions_normalise_by_the_batch(
    wrapper: OptimizerWrapper, momentum: float | None
) -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 3),
            nn.BatchNorm1d(3, momentum=momentum),
            nn.BatchNorm1d(3).eval(),
            nn.Linear(3, 1),
        )  # pyright: ignore

    model, plain = network(), network()
    parts = [torch.randn(6, 3) for _ in range(2)]

    def run(part: Tensor) -> Tensor:
        loss = functional.softplus(model(part)).mean()
        loss.backward()
        return loss.detach()

    def look(norm: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        normal = functional.batch_norm(
            inputs[0], None, None, norm.weight, norm.bias, training=True, eps=norm.eps
        )
        normalised.append(torch.equal(output, normal))

    normalised: list[bool] = []
    model[1].register_forward_hook(look)
    wrapper(
        list(model.parameters()),
        [Repeatable(functools.partial(run, part), model) for part in parts],
        head=list(model[3].parameters()),
    )
    for part in parts:
        plain(part)
    for (name, found), expected in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, expected), name
    assert model[1].num_batches_tracked == 2
    assert all(normalised)


@every_perturbing_wrapper
def test_autocast_does_not_show_a_perturbed_pass_the_parameters_of_before(
    wrapper: OptimizerWrapper,
) -> None:
    """Its cache keeps cast parameters for as long as the outermost block lasts."""
    model, inputs, found = nn.Linear(8, 4), torch.randn(5, 8), []

    def run() -> Tensor:
        loss = model(inputs).float().square().mean()
        loss.backward()
        return loss.detach()

    for cached in (True, False):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            wrapper(list(model.parameters()), [Repeatable(run, model)], head=[])
        found.append(grads(list(model.parameters())))
    assert torch.equal(*found)
    with torch.autocast("cpu", torch.bfloat16):
        ERM()(list(model.parameters()), [Repeatable(run, model)])
    assert not torch.equal(grads(list(model.parameters())), found[0])


# ---- in training

IDS = ["blend", "swap"]
ACTIVE = [SAM(0.3), SAGM(0.3, 0.1), RoGA(0.3, 0.1, 2.0, "own", 0), RoGA(0.3, 0.1, 2.0, "all", 0)]
"""From the first epoch on."""


@pytest.fixture(scope="module")
def forgeries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forgeries beside real frames: 24 training frames."""
    return grow_tree(
        tmp_path_factory.mktemp("forgeries"), domains=("real", "swap", "blend"), videos=4
    )


def by_hand(*sizes: tuple[int, int]) -> list[Frames]:
    """Batches with so many frames of each of two domains."""
    batches, generator = [], torch.Generator().manual_seed(0)
    for one, two in sizes:
        count = one + two
        image = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        batches.append(
            Frames(
                image,
                torch.arange(count) % 2,
                torch.tensor([0] * one + [1] * two),
                torch.arange(count),
            )
        )
    return batches


def joined(batches: Sequence[Frames]) -> Frames:
    return Frames(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def train(
    wrapper: OptimizerWrapper,
    batches: Any,
    folder: Path,
    method: Method = full,
    worker: dict[str, Any] | None = None,
    **changes: Any,
) -> Learner:
    torch.manual_seed(0)
    model = tiny_vit()
    adaptation = method(model, None)  # pyright: ignore
    defaults: dict[str, Any] = {
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "schedule": constant,
        "steps": 10,
        "domains": IDS,
    }
    defaults |= {"weight_decay": 0.0, "clip": None}
    learner = build_learner(model, wrapper, adaptation=adaptation, **(defaults | changes))
    loader = DataLoader(batches, batch_size=None) if isinstance(batches, list) else batches
    trainer(folder, **(worker or {})).fit(learner, train_dataloaders=loader)
    return learner


def weights(learner: Learner) -> list[Tensor]:
    return [parameter.detach() for parameter in learner.detector.parameters()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "wrapper", [*WRAPPERS[:5], WHOLE[2], ADAPTIVE[2]], ids=[*NAMES[:5], "own-whole", "own-adaptive"]
)
def test_every_wrapper_trains_every_method(
    wrapper: OptimizerWrapper, method: str, forgeries: Path, tmp_path: Path
) -> None:
    data = module(forgeries, batches="balanced", batch_size=8)
    assert data.training_domains == IDS
    torch.manual_seed(0)
    start = tiny_vit()
    METHODS[method](start, None)  # pyright: ignore
    learner = train(
        wrapper, data.train_dataloader(), tmp_path, METHODS[method], worker={"max_epochs": 2}
    )
    assert learner.trainer.global_step == 6
    for (name, value), before in zip(
        learner.detector.named_parameters(), start.parameters(), strict=True
    ):
        assert value.isfinite().all(), name
        if not value.requires_grad:
            assert torch.equal(value, before), name
    assert not all(map(torch.equal, learner.detector.parameters(), start.parameters()))
    logged = {
        name
        for name in learner.trainer.logged_metrics
        if name.startswith(("train/c", "train/d", "train/g", "train/h", "train/pert"))
    }
    expected = {
        "train/classification",
        "train/head_gradient_share",
        "train/gradient_norm",
        "train/gradient_norm/head",
        "train/gradient_norm/backbone",
    }
    expected |= (
        {"train/cosine_aligned", "train/perturbed_loss"} if not isinstance(wrapper, ERM) else set()
    )
    if not isinstance(wrapper, ERM | SAM):
        expected |= {"train/descent_per_ascent"}
    if wrapper.by_domain:
        expected |= {
            "train/cosine_domains",
            "train/classification/swap",
            "train/classification/blend",
        }
    assert logged == expected


@pytest.mark.parametrize(
    "wrapper",
    [
        *ACTIVE,
        *(replace(wrapper, perturb="all") for wrapper in ACTIVE),
        replace(ACTIVE[2], adaptive=True),
    ],
    ids=[*NAMES[1:9], "own-adaptive"],
)
def test_a_step_of_training_is_that_of_the_formula(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    [batch] = by_hand((3, 5))
    torch.manual_seed(0)
    model = tiny_vit().double()
    names, params = zip(*model.named_parameters(), strict=True)

    def gradient(theta: Tensor, place: int) -> Tensor:
        theta = theta.detach().requires_grad_()
        parts = theta.split([parameter.numel() for parameter in params])
        named = {
            name: part.view_as(value)
            for name, value, part in zip(names, params, parts, strict=True)
        }
        own = batch.domain == place if wrapper.by_domain else batch.domain >= 0
        logits = functional_call(model, named, (batch.image[own],))
        loss = (
            functional.binary_cross_entropy_with_logits(
                logits, batch.label[own].double(), reduction="sum"
            )
            / 8
        )
        return torch.autograd.grad(loss, theta)[0]

    theta = flat(params).detach()
    still = set(model.head().parameters()) if wrapper.perturb == "backbone" else set()
    moves = flat(
        [torch.full_like(parameter, float(parameter not in still)) for parameter in params]
    )
    expected = direction(wrapper, theta, gradient, 2 if wrapper.by_domain else 1, moves)
    found = (theta - flat(weights(train(wrapper, [batch], tmp_path))).double()) / 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (
        found - gradient(theta, 0) - (gradient(theta, 1) if wrapper.by_domain else 0)
    ).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("wrapper", [ERM(), *ACTIVE], ids=NAMES[:5])
def test_accumulated_batches_equal_their_joint_batch(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    """Also where a batch lacks a domain, and where batches differ in size."""
    batches = by_hand((3, 1), (0, 4), (2, 2), (3, 4))
    apart = train(wrapper, batches, tmp_path, accumulate=2)
    joint = train(wrapper, [joined(batches[:2]), joined(batches[2:])], tmp_path)
    assert apart.trainer.global_step == joint.trainer.global_step == 2
    for one, two in zip(weights(apart), weights(joint), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrapper", [SAM(0.3), SAGM(0.3, 0.1)], ids=["sam", "sagm"])
def test_accumulation_of_shuffled_batches_equals_a_larger_batch(
    wrapper: OptimizerWrapper, forgeries: Path, tmp_path: Path
) -> None:
    apart, joint = (
        train(
            wrapper,
            module(forgeries, batch_size=size).train_dataloader(),
            tmp_path,
            accumulate=count,
            domains=[],
        )
        for size, count in ((4, 2), (8, 1))
    )
    for one, two in zip(weights(apart), weights(joint), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def moved(learner: Learner) -> dict[str, Tensor]:
    """How far training moved the head and the backbone of a tiny ViT, which began as `train`
    begins.
    """
    torch.manual_seed(0)
    pairs = list(zip(learner.detector.named_parameters(), tiny_vit().parameters(), strict=True))
    parts = {
        part: [
            now - before for (name, now), before in pairs if ("head" in name) == (part == "head")
        ]
        for part in ("head", "backbone")
    }
    return {part: flat(differences).norm() for part, differences in parts.items()}


@pytest.mark.parametrize("wrapper", [ERM(), *ACTIVE], ids=NAMES[:5])
def test_clipping_bounds_what_the_optimizer_follows_of_head_and_backbone_each(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    free, clipped = (train(wrapper, by_hand((3, 5)), tmp_path, clip=clip) for clip in (None, 1e-3))
    norms = {
        part: free.trainer.logged_metrics[f"train/gradient_norm/{part}"]
        for part in ("head", "backbone")
    }
    for part, distance in moved(free).items():
        assert distance.item() == pytest.approx(0.1 * norms[part].item(), rel=1e-3)
        assert clipped.trainer.logged_metrics[f"train/gradient_norm/{part}"] == norms[part]
    for distance in moved(clipped).values():
        assert distance.item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    whole = free.trainer.logged_metrics["train/gradient_norm"]
    assert whole.item() == pytest.approx(
        math.hypot(*(length.item() for length in norms.values())), rel=1e-5
    )


def test_a_part_whose_gradient_is_within_the_limit_is_not_clipped_for_the_others_sake(
    tmp_path: Path,
) -> None:
    """A common norm would make the backbone of an adapter wait for the head, which holds most of
    the gradient.
    """
    free = train(ERM(), by_hand((3, 5)), tmp_path, METHODS["lora"])
    norms = [
        free.trainer.logged_metrics[f"train/gradient_norm/{part}"].item()
        for part in ("backbone", "head")
    ]
    assert norms[0] < norms[1]
    clipped = train(ERM(), by_hand((3, 5)), tmp_path, METHODS["lora"], clip=sum(norms) / 2)
    same = {
        name: torch.equal(one, two)
        for (name, one), two in zip(free.detector.named_parameters(), weights(clipped), strict=True)
    }
    assert not same["backbone.head.weight"]
    assert all(equal for name, equal in same.items() if "head" not in name)


@pytest.mark.parametrize("wrapper", ACTIVE, ids=NAMES[1:5])
def test_a_wrapper_that_leaves_the_head_in_place_is_refused_where_only_the_head_is_trainable(
    wrapper: Any, tmp_path: Path
) -> None:
    batches = by_hand((3, 5))
    with pytest.raises(
        InputError,
        match=(
            r"wrapper\.perturb=backbone leaves nothing to perturb, for only the head is "
            r"trainable; take wrapper=erm"
        ),
    ):
        train(wrapper, batches, tmp_path, probe)
    assert train(replace(wrapper, perturb="all"), batches, tmp_path, probe).trainer.global_step == 1
    assert train(ERM(), batches, tmp_path, probe).trainer.global_step == 1


def test_on_the_command_line_it_is_refused_in_one_sentence_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        *TINY,
        "data.workers=0",
        "method=probe",
        "hydra.run.dir=run",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
    ]
    assert main([*words, "wrapper=sam"]) == 2
    said = capsys.readouterr().err
    assert (
        said.count(
            "wrapper.perturb=backbone leaves nothing to perturb, for only the head is trainable; "
            "take wrapper=erm"
        )
        == 1
    )
    assert not (tmp_path / "run").exists()
    assert (
        main(
            [
                *words,
                "wrapper=sam",
                "wrapper.perturb=all",
                "wrapper.adaptive=true",
                "wrapper.eta=0.01",
            ]
        )
        == 0
    )
    assert (tmp_path / "run" / "results.csv").is_file()


@pytest.mark.parametrize(
    "wrapper",
    [SAM(0.3, 1), SAGM(0.3, 0.1, 1), RoGA(0.3, 0.1), RoGA(0.3, 0.1, evaluate="all")],
    ids=NAMES[1:5],
)
def test_the_first_epoch_is_plain_erm(wrapper: OptimizerWrapper, tmp_path: Path) -> None:
    batches = by_hand((3, 5), (4, 4))
    for epochs in (1, 2):
        one, two = (
            train(rule, batches, tmp_path, METHODS["lora"], worker={"max_epochs": epochs})
            for rule in (wrapper, ERM())
        )
        assert all(map(torch.equal, weights(one), weights(two))) == (epochs == 1)


@pytest.mark.parametrize(
    "wrapper",
    [SAM(0.0), SAGM(0.0, 0.0), RoGA(0.0, 0.0, 2.0, "own", 0), RoGA(0.0, 0.0, 2.0, "all", 0)],
    ids=NAMES[1:5],
)
def test_without_perturbation_training_with_dropout_is_erm(
    wrapper: OptimizerWrapper, tmp_path: Path
) -> None:
    """Only where all passes of a step over the same frames see the same dropout."""
    batches = by_hand((4, 0), (4, 0)) if wrapper.by_domain else by_hand((3, 5), (4, 4))
    one, two = (
        train(rule, batches, tmp_path, METHODS["lora"], domains=IDS[:1])
        for rule in (wrapper, ERM())
    )
    for found, expected in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Watch(Callback):
    """What rests when a step begins is not moved by its passes, nor is the head if it stays in
    place; what rests when it ends is not moved at all.
    """

    def __init__(self, wrapper: OptimizerWrapper) -> None:
        self.wrapper = wrapper
        self.rested = self.perturbed = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.detector.register_forward_pre_hook(lambda module, inputs: self.look(module))

    def look(self, detector: nn.Module) -> None:
        assert bits(self.still) == self.frozen
        if self.wrapper.perturb == "backbone":
            assert bits(list(detector.head().parameters())) == self.head  # pyright: ignore
        self.perturbed += bits(list(detector.parameters())) != self.before

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.still = list(pl_module.step_rule.inactive())
        self.frozen = bits(self.still)
        self.head = bits(list(pl_module.detector.head().parameters()))
        self.before = bits(list(pl_module.detector.parameters()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        still = pl_module.step_rule.inactive()
        self.rested += len(still)
        for parameter, before in zip(pl_module.detector.parameters(), self.before, strict=True):
            if parameter in still:
                assert bits([parameter]) == [before]
        assert bits(list(pl_module.detector.parameters())) != self.before


@pytest.mark.parametrize(
    "wrapper", [*ACTIVE, *(replace(wrapper, perturb="all") for wrapper in ACTIVE)], ids=NAMES[1:9]
)
def test_what_rests_under_masm_does_not_move(wrapper: OptimizerWrapper, tmp_path: Path) -> None:
    watch = Watch(wrapper)
    adamw = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
    learner = train(
        wrapper,
        by_hand(*[(3, 5)] * 7),
        tmp_path,
        METHODS["masm"],
        worker={"callbacks": [watch]},
        optimizer=adamw,
    )
    assert isinstance(learner.step_rule, SubspaceMaskRule)
    assert len(learner.step_rule.history.steps) == 3
    assert watch.rested > 0
    assert watch.perturbed > 0


def test_a_wrapper_by_domain_without_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batches hold none; set data\.batches=balanced"):
        train(RoGA(), by_hand((1, 1)), tmp_path, domains=[])


@pytest.mark.parametrize("method", ["fmsd", "full"])
@pytest.mark.parametrize(
    "wrapper",
    [SAM(3.0), SAGM(3.0, 0.1), RoGA(3.0, 0.1, 1.0, "own", 0), RoGA(3.0, 0.1, 1.0, "all", 0)],
    ids=NAMES[1:5],
)
def test_under_bf16_the_second_stage_sees_perturbed_parameters(
    wrapper: OptimizerWrapper, method: str, tmp_path: Path
) -> None:
    learner = train(
        wrapper,
        by_hand((3, 5), (4, 4)),
        tmp_path,
        METHODS[method],
        worker={"precision": "bf16-mixed"},
    )
    assert learner.trainer.logged_metrics["train/cosine_aligned"] < 0.9999
    assert all(
        value.isfinite().all() and value.dtype == torch.float32 for value in weights(learner)
    )


def test_too_large_an_alpha_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = by_hand(*[(1, 1)] * 12)
    for alpha, times in ((1e-4, 0), (10.0, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fmsd"):
            train(
                SAGM(0.05, alpha),
                batches,
                tmp_path,
                METHODS["fmsd"],
                optimizer=functools.partial(torch.optim.SGD, lr=1e-4),
            )
        assert caplog.text.count("train/descent_per_ascent is") == times


def test_points_that_lie_too_far_off_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = by_hand(*[(1, 1)] * 12)
    for rho, times in ((1e-3, 0), (30.0, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fmsd"):
            learner = train(
                SAM(rho, perturb="all"),
                batches,
                tmp_path,
                optimizer=functools.partial(torch.optim.SGD, lr=1e-4),
            )
        logged = learner.trainer.logged_metrics
        assert (logged["train/perturbed_loss"] > 1.5 * logged["train/loss"]) == bool(times)
        assert caplog.text.count("The loss at the perturbed parameters is") == times
