"""Passes that can be repeated: the same dropout, one update of statistics, no stale casts."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.optim.erm import ERM
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from fmsd.optim.wrapper import OptimizerWrapper
from tests.wrappers import every_perturbing_wrapper, every_wrapper, grads


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
