"""torch.compile sees a whole forward pass of every method as one graph, and sees it once."""

from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor

from fmsd.optim.groups import trainable_parameters
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from tests.conftest import UNFOLDABLE, tiny_vit
from tests.test_adapter import METHODS


@pytest.mark.parametrize("method", [*METHODS, *UNFOLDABLE])
def test_the_passes_of_a_wrapper_share_one_graph(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check of shapes while tests run does not compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch._dynamo.reset()
    model = tiny_vit()
    (METHODS | UNFOLDABLE)[method](model)
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    forward = torch.compile(model.forward, fullgraph=True, backend=backend)
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)

    def run() -> Tensor:
        loss = forward(image).square().mean()
        loss.backward()
        return loss.detach()

    passes = [Repeatable(run, model) for _ in range(2)]
    for _ in range(2):  # steps
        RoGA(perturb="all")(trainable_parameters(model), passes)
    assert len(graphs) == 1
