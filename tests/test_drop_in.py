"""The wrappers in a training loop without Lightning: the same steps as the formulas, whatever the
optimizer; resumable in full.
"""

import copy
import functools
import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.optim import Lion
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.optim.drop_in import DropIn
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper
from tests.wrappers import Problem, close, direction, flat

Factory = Callable[..., torch.optim.Optimizer]

WRAPPERS = [
    ERM(),
    SAM(0.3),
    SAGM(0.3, 0.1),
    RoGA(0.3, 0.1, 2.0, "own", 0),
    RoGA(0.3, 0.1, 2.0, "all", 0),
]
WRAPPERS += [SAM(0.3, perturb="all"), RoGA(0.3, 0.1, 2.0, "own", 0, perturb="all", adaptive=True)]
every_wrapper = pytest.mark.parametrize(
    "wrapper", WRAPPERS, ids=["erm", "sam", "sagm", "own", "all", "sam-whole", "own-whole-adaptive"]
)
OPTIMIZERS = [
    functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    functools.partial(torch.optim.AdamW, lr=0.01),
    functools.partial(Lion, lr=0.01),
]
every_optimizer = pytest.mark.parametrize("factory", OPTIMIZERS, ids=["sgd", "adamw", "lion"])


def mean_losses(problem: Problem) -> list[Callable[[], Tensor]]:
    """Closures, one per domain, of the mean loss over its frames."""
    frames = sum(len(label) for _, label in problem.data)
    return [
        lambda place=place, label=label: problem.loss(problem.model, place) * frames / len(label)
        for place, (_, label) in enumerate(problem.data)
    ]


def naive_step(
    problem: Problem, wrapper: OptimizerWrapper, optimizer: torch.optim.Optimizer
) -> None:
    """A step on the mean of the domains' mean losses, by the formula."""
    frames, domains = sum(len(label) for _, label in problem.data), len(problem.data)

    def gradient(theta: Tensor, place: int) -> Tensor:
        return problem.gradient(theta, place) * frames / len(problem.data[place][1]) / domains

    found = direction(wrapper, problem.theta, gradient, domains, problem.moves(wrapper))
    for parameter, part in zip(
        problem.params,
        found.split([parameter.numel() for parameter in problem.params]),
        strict=True,
    ):
        parameter.grad = part.view_as(parameter)
    optimizer.step()


@every_optimizer
@every_wrapper
def test_steps_are_those_of_the_formula(wrapper: OptimizerWrapper, factory: Factory) -> None:
    one = Problem(3, 5, 8)
    two = copy.deepcopy(one)
    stepped, naive = DropIn(factory(one.params), wrapper, one.model, one.head), factory(two.params)
    for _ in range(6):
        expected = torch.stack([loss() for loss in mean_losses(two)]).mean().detach()
        found = stepped.step(mean_losses(one))
        naive_step(two, wrapper, naive)
        close(found, expected)
        close(one.theta, two.theta, 1e-9)
        assert not found.requires_grad
        assert all(parameter.grad is None for parameter in one.params)
    assert stepped.outcome is not None
    assert len(stepped.outcome.losses) == 3


def test_a_single_closure_takes_the_place_of_a_list() -> None:
    one = Problem(6)
    two = copy.deepcopy(one)
    factory = functools.partial(torch.optim.SGD, lr=0.1)
    DropIn(factory(one.params), SAM(0.3), one.model, one.head).step(mean_losses(one)[0])
    DropIn(factory(two.params), SAM(0.3), two.model, two.head).step(mean_losses(two))
    assert torch.equal(one.theta, two.theta)


def test_a_step_works_where_gradients_are_switched_off() -> None:
    problem = Problem(6)
    before = problem.theta
    with torch.no_grad():
        DropIn(torch.optim.SGD(problem.params, lr=0.1), SAM(0.3), problem.model, problem.head).step(
            mean_losses(problem)
        )
    assert not torch.equal(problem.theta, before)


def test_the_head_is_a_module_or_its_parameters() -> None:
    start, points = Problem(3, 5), []
    for part in (
        lambda model: model[2],
        lambda model: model[2].parameters(),
        lambda model: list(model[2].parameters()),
    ):
        problem = copy.deepcopy(start)
        DropIn(
            torch.optim.SGD(problem.params, lr=0.1), SAM(0.3), problem.model, part(problem.model)
        ).step(mean_losses(problem))
        points.append(problem.theta)
    assert all(torch.equal(point, points[0]) for point in points)


@pytest.mark.parametrize("wrapper", [SAM(), SAGM(), RoGA()], ids=["sam", "sagm", "own"])
def test_a_wrapper_that_leaves_the_head_in_place_has_to_know_it(wrapper: Any) -> None:
    """No loop perturbs the head because nobody said which it is."""
    problem, other = Problem(4), Problem(4)
    optimizer = torch.optim.SGD(problem.params, lr=0.1)
    with pytest.raises(
        InputError,
        match=r"wrapper\.perturb=backbone leaves out the head.*; "
        r"pass them as head=\.\.\., or perturb the head as well",
    ):
        DropIn(optimizer, wrapper, problem.model)
    with pytest.raises(
        InputError,
        match="None of the head's parameters is trained by the optimizer; give the head of this "
        "model, or",
    ):
        DropIn(optimizer, wrapper, problem.model, other.model[2])
    with pytest.raises(
        InputError, match="leaves nothing to perturb, for only the head is trainable"
    ):
        DropIn(torch.optim.SGD(problem.head, lr=0.1), wrapper, problem.model, problem.head)
    for params in (problem.params, problem.head):
        whole = DropIn(
            torch.optim.SGD(params, lr=0.1),
            replace(wrapper, perturb="all", warmup_epochs=0),
            problem.model,
        )
        assert whole.step(mean_losses(problem)).isfinite()
    assert DropIn(optimizer, ERM(), problem.model).step(mean_losses(problem)).isfinite()


def test_frozen_parameters_stay_as_they_are() -> None:
    problem = Problem(3, 5)
    problem.params[0].requires_grad_(False)
    before = [parameter.detach().clone() for parameter in problem.params]
    DropIn(torch.optim.AdamW(problem.params, lr=0.1), SAM(0.3), problem.model, problem.head).step(
        mean_losses(problem)
    )
    assert [torch.equal(*pair) for pair in zip(problem.params, before, strict=True)] == [
        True,
        False,
        False,
        False,
    ]


class Loop:
    """A loop over batches of two domains with dropout and batch norm, and a seed per step."""

    def __init__(self, wrapper: OptimizerWrapper, factory: Factory) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.optimizer = DropIn(
            factory(self.model.parameters()), wrapper, self.model, self.model[3]
        )

    def run(self, *steps: int) -> "Loop":
        for step in steps:
            torch.manual_seed(step)
            data = [(torch.randn(5, 4), torch.randint(0, 2, (5, 1)).float()) for _ in range(2)]
            closures = [
                lambda x=x, y=y: functional.binary_cross_entropy_with_logits(self.model(x), y)
                for x, y in data
            ]
            self.optimizer.step(closures)
        return self

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


@every_optimizer
@every_wrapper
def test_a_loop_goes_on_from_its_state_as_if_nothing_had_been(
    wrapper: OptimizerWrapper, factory: Factory
) -> None:
    whole = Loop(wrapper, factory).run(1, 2, 3, 4, 5, 6)
    file = io.BytesIO()
    torch.save(Loop(wrapper, factory).run(1, 2, 3).state(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed, forgetful = Loop(wrapper, factory), Loop(wrapper, factory)
    for loop in (resumed, forgetful):
        loop.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    for loop in (resumed, forgetful):
        loop.run(4, 5, 6)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert whole.optimizer.state.keys() == set(whole.model.parameters())
    for one, two in zip(
        whole.optimizer.state.values(), resumed.optimizer.state.values(), strict=True
    ):
        assert one.keys() == two.keys()
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in one)
    assert not all(map(torch.equal, forgetful.model.parameters(), whole.model.parameters()))


def test_the_state_is_that_of_the_optimizer_itself() -> None:
    loop = Loop(SAM(), OPTIMIZERS[1]).run(1, 2)
    plain = torch.optim.AdamW(loop.model.parameters(), lr=0.5)
    plain.load_state_dict(loop.optimizer.state_dict())
    assert plain.param_groups[0]["lr"] == 0.01
    assert loop.optimizer.param_groups is loop.optimizer.optimizer.param_groups


def test_epochs_of_warm_up_are_plain_erm_and_need_to_know_the_epoch() -> None:
    factory, wrapper = functools.partial(torch.optim.SGD, lr=0.1), RoGA(0.3, 0.1, warmup_epochs=2)
    problems = [Problem(3, 5)]
    problems += [copy.deepcopy(problems[0]) for _ in range(2)]
    warm, erm, full = (
        DropIn(factory(p.params), rule, p.model, p.head)
        for p, rule in zip(problems, (wrapper, ERM(), RoGA(0.3, 0.1, warmup_epochs=0)), strict=True)
    )
    with pytest.raises(
        InputError,
        match=r"begins with 2 epochs of plain ERM; "
        r"pass the epoch: step\(closures, epoch=\.\.\.\)",
    ):
        warm.step(mean_losses(problems[0]))
    for epoch in (0, 0, 1):
        warm.step(mean_losses(problems[0]), epoch=epoch)
        erm.step(mean_losses(problems[1]))
        assert torch.equal(problems[0].theta, problems[1].theta)
    problems[2].model.load_state_dict(problems[0].model.state_dict())
    warm.step(mean_losses(problems[0]), epoch=2)
    erm.step(mean_losses(problems[1]))
    full.step(mean_losses(problems[2]))
    assert torch.equal(problems[0].theta, problems[2].theta)
    assert not torch.equal(problems[0].theta, problems[1].theta)


def test_a_schedule_over_the_optimizer_sets_the_length_of_the_steps() -> None:
    problem = Problem(4, 4)
    optimizer = torch.optim.SGD(problem.params, lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    wrapped = DropIn(optimizer, SAM(0.3), problem.model, problem.head)
    points = [problem.theta]
    for _ in range(3):
        expected = problem.expected(SAM(0.3))
        wrapped.step(mean_losses(problem))
        schedule.step()
        points.append(problem.theta)
        close((points[-2] - points[-1]) / 0.1 ** (len(points) - 2), expected, 1e-8)
    assert wrapped.param_groups[0]["lr"] == pytest.approx(1e-3)
    lengths = [(two - one).norm() for one, two in itertools.pairwise(points)]
    assert lengths[0] > 5 * lengths[1] > 25 * lengths[2]


@every_wrapper
def test_batch_norm_statistics_move_once_a_step(wrapper: OptimizerWrapper) -> None:
    loop = Loop(wrapper, OPTIMIZERS[0]).run(1, 2, 3)
    assert loop.model[1].num_batches_tracked == 2 * 3  # two domains, three steps


def test_gradients_of_before_do_not_count() -> None:
    one = Problem(3, 5)
    two = copy.deepcopy(one)
    flat(one.params).sum().backward()
    for problem in (one, two):
        DropIn(torch.optim.SGD(problem.params, lr=0.1), SAM(0.3), problem.model, problem.head).step(
            mean_losses(problem)
        )
    assert torch.equal(one.theta, two.theta)
