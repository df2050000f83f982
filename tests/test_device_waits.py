"""No step waits for the device: nothing in it reads the value of a tensor that lies there.

The tensors of a step are replaced by fake ones, which have shapes and no values: whoever reads one
(`item`, `tolist`, `bool`, `numpy`) gets an error of torch, where a GPU would have to finish first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fmsd.engine.domains import Part
from fmsd.engine.passes import loss_pass
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Outputs
from fmsd.models.detector import Detector
from fmsd.optim.erm import ERM
from fmsd.optim.groups import decay_groups, trainable_parameters
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper
from tests.conftest import UNFOLDABLE, tiny_vit
from tests.test_adapter import METHODS

WRAPPERS: dict[str, OptimizerWrapper] = {
    "erm": ERM(),
    "sam": SAM(perturb="all"),
    "sagm": SAGM(perturb="all"),
    "roga": RoGA(perturb="all"),
    "roga, all": RoGA(perturb="all", evaluate="all"),
}


@contextmanager
def without_values(model: Detector, rule: nn.Module | None) -> Iterator[None]:
    """The tensors of a model and of its method's rule, and all new ones, have no values inside."""
    with FakeTensorMode():
        for module in (*model.modules(), *(() if rule is None else rule.modules())):
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    fake = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                    module._parameters[name] = fake
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        yield


def test_a_value_that_is_read_is_noticed() -> None:
    with without_values(tiny_vit(), None), pytest.raises(DataDependentOutputException):
        torch.ones(2).sum().item()


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("method", [name for name in (*METHODS, *UNFOLDABLE) if name != "masm"])
def test_a_step_reads_no_value(method: str, wrapper: OptimizerWrapper) -> None:
    model = tiny_vit()
    adaptation = (METHODS | UNFOLDABLE)[method](model)
    loss = DetectionLoss(smoothing=0.1)

    def outputs(part: Part) -> Outputs:
        return Outputs(model(part.image).float(), part.label, part.weight)

    with without_values(model, None):
        part = Part(
            torch.empty(4, 3, 32, 32, dtype=torch.uint8),
            torch.empty(4, dtype=torch.long),
            torch.empty(4),
        )
        terms = torch.zeros(len(loss.terms))
        run = loss_pass([part], 8, loss, outputs, lambda scalar: scalar.backward(), terms)
        passes = [Repeatable(run, model) for _ in range(2 if wrapper.by_domain else 1)]
        params = trainable_parameters(model)
        optimizer = torch.optim.AdamW(decay_groups(model, 0.01), lr=0.01)  # pyright: ignore[reportArgumentType]
        outcome = wrapper(params, passes, head=trainable_parameters(model.head()))
        for weight, penalty in adaptation.penalties.values():
            (weight * penalty(model)).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        assert len(outcome.losses) == len(passes)
