"""Optimizer wrappers in several processes."""

import copy
import functools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fmsd.optim.wrapper import OptimizerWrapper
from tests.wrappers import NAMES, WRAPPERS, Problem, close, every_wrapper, grads


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
