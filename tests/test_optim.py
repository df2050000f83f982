import itertools
import math

import pytest
import torch
from torch import nn

from fmsd.models.detector import Detector
from fmsd.optim.groups import decay_groups
from fmsd.optim.schedule import constant, cosine
from fmsd.peft.fmsd import fmsd
from tests.conftest import tiny_vit


def test_cosine_rises_and_falls_to_its_floor() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, steps=100, warmup=0.1, floor=0.05)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(2 * (0.05 + 0.95 * (1 + math.cos(math.pi / 2)) / 2))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_schedule_of_one_step_works() -> None:
    for factory in (cosine, constant):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = factory(optimizer, 1)
        assert optimizer.param_groups[0]["lr"] > 0
        optimizer.step()
        schedule.step()


def test_decay_spares_factors_biases_and_norms(tiny: Detector) -> None:
    everything = decay_groups(tiny, 0.1)
    assert [group["weight_decay"] for group in everything] == [0.1, 0.0]
    named = {parameter: name for name, parameter in tiny.named_parameters()}
    decayed = {named[parameter] for parameter in everything[0]["params"]}  # pyright: ignore
    assert "backbone.blocks.0.attn.qkv.weight" in decayed
    assert not any(
        "bias" in name or "norm" in name or name.endswith(("cls_token", "pos_embed"))
        for name in decayed
    )
    assert sum(len(group["params"]) for group in everything) == len(named)  # pyright: ignore
    fmsd(tiny, patterns=["*attn.qkv"], subspaces=2, directions=1)
    named = {parameter: name for name, parameter in tiny.named_parameters()}
    groups = {
        group["weight_decay"]: {named[parameter] for parameter in group["params"]}
        for group in decay_groups(tiny, 0.1)
    }  # pyright: ignore
    assert groups[0.1] == {"backbone.head.weight"}
    assert len(groups[0.0]) == 2 * 3 + 1


def test_decay_of_everything_is_that_of_torch_over_all_that_learns() -> None:
    """Factors, biases and the head, as a plain loop over the trainable parameters has it."""
    image, models = torch.rand(4, 3, 32, 32), []
    for ours in (True, False):
        torch.manual_seed(0)
        model = tiny_vit()
        fmsd(model, patterns=["attention"], subspaces=1, directions=1, penalties={})
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        settings = {"lr": 0.01} if ours else {"lr": 0.01, "weight_decay": 0.1}
        optimizer = torch.optim.Adam(
            decay_groups(model, 0.1, "all") if ours else trainable, **settings
        )  # pyright: ignore
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
        for _ in range(3):
            optimizer.zero_grad()
            model(image).square().mean().backward()
            optimizer.step()
        models.append(model.state_dict())
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
