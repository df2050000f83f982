"""MASM: an inactive subspace does not move at all, under any optimizer; the others do."""

import copy
import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.adapter import load_state_dict
from fmsd.peft.adapter import state_dict as adapter_state
from fmsd.peft.masm import SubspaceMaskRule, masm
from fmsd.peft.method import Adaptation
from tests import conftest
from tests.conftest import tiny_vit

IMAGE = torch.rand(4, 3, 32, 32)
LABEL = torch.tensor([0.0, 1.0, 0.0, 1.0])


def adapt(model: Detector, **changes: object) -> tuple[Adaptation, SubspaceMaskRule]:
    settings = {
        "patterns": ["attention"],
        "subspaces": 3,
        "directions": 2,
        "every": 2,
        "momentum": 0.9,
        "fraction": 0.5,
    }
    adaptation = masm(model, **(settings | changes))  # pyright: ignore
    assert isinstance(adaptation.rule, SubspaceMaskRule)
    return adaptation, adaptation.rule


def step(model: Detector, adaptation: Adaptation, optimizer: torch.optim.Optimizer) -> None:
    conftest.step(model, adaptation, optimizer, IMAGE + 0.3 * torch.randn_like(IMAGE), LABEL)


@pytest.mark.parametrize("constraint", ["soft", "hard"])
@pytest.mark.parametrize(
    "factory",
    [
        functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
        functools.partial(torch.optim.RMSprop, lr=0.01),
    ],
)
def test_an_inactive_subspace_and_its_moments_stay_bit_equal(
    tiny: Detector, factory: Callable[..., torch.optim.Optimizer], constraint: str
) -> None:
    adaptation, rule = adapt(tiny, constraint=constraint)
    optimizer = factory([parameter for parameter in tiny.parameters() if parameter.requires_grad])
    rested = learned = 0
    for count in range(1, 9):
        before = [
            [parameter.detach().clone() for parameter in unit.parameters()] for unit in rule.units
        ]
        moments = copy.deepcopy(optimizer.state_dict()["state"])
        step(tiny, adaptation, optimizer)
        after = optimizer.state_dict()["state"]
        places = {
            id(parameter): place
            for place, parameter in enumerate(optimizer.param_groups[0]["params"])
        }
        for unit, old, active in zip(rule.units, before, rule.active, strict=True):
            same = [
                torch.equal(parameter, value)
                for parameter, value in zip(unit.parameters(), old, strict=True)
            ]
            if active:
                learned += 1
                assert not any(same)
                continue
            rested += 1
            assert all(same)
            for parameter in unit.parameters():
                place = places[id(parameter)]
                assert (place in after) == (place in moments)
                for name, value in moments.get(place, {}).items():
                    assert value is None or torch.equal(
                        torch.as_tensor(after[place][name]), torch.as_tensor(value)
                    ), name
        assert (rested > 0) == (count >= 2)
    assert learned > 0


def test_as_many_subspaces_learn_as_asked_for_and_the_history_tells_which(tiny: Detector) -> None:
    adaptation, rule = adapt(tiny, every=3, fraction=0.3)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in tiny.parameters() if parameter.requires_grad], lr=0.01
    )
    for _ in range(10):
        step(tiny, adaptation, optimizer)
    history = adaptation.history
    assert history is not None
    assert history.steps == [3, 6, 9]
    assert len(history.units) == 12
    assert history.units[0] == "blocks.0.attn.qkv.artifacts.0"
    assert all(sum(active) == math.ceil(0.3 * 12) for active in history.active)
    for active, scores in zip(history.active, history.scores, strict=True):
        assert min(value for value, on in zip(scores, active, strict=True) if on) >= max(
            value for value, on in zip(scores, active, strict=True) if not on
        )
        assert all(0 <= value <= 1 for value in scores)
    assert history.active[-1] == rule.active


def test_scores_equal_those_of_all_gradients_kept_with_their_weights(tiny: Detector) -> None:
    _, rule = adapt(tiny, every=100, momentum=0.8)
    kept: list[list[torch.Tensor]] = []
    for _ in range(6):
        functional.binary_cross_entropy_with_logits(
            tiny(torch.rand(4, 3, 32, 32)), LABEL
        ).backward()
        kept.append(
            [
                torch.cat([part.flatten() for part in unit.relative_gradients()]).double()
                for unit in rule.units
            ]
        )
        rule.observe()
        tiny.zero_grad()
    weights = torch.tensor([0.2 * 0.8 ** (5 - i) for i in range(6)], dtype=torch.float64)
    weights = weights / weights.sum()
    worth = 1 / weights.square().sum()
    for place, found in enumerate(rule.scores()):
        rows = torch.stack([row[place] for row in kept])
        mean = (weights[:, None] * rows).sum(0)
        variance = (
            ((weights * rows.square().sum(1)).sum() - mean.square().sum()) * worth / (worth - 1)
        )
        signal = (mean.square().sum() - variance / worth).clamp(min=0)
        torch.testing.assert_close(found, signal / (signal + variance), rtol=1e-4, atol=1e-5)


def test_the_state_of_a_subspace_does_not_depend_on_how_its_factors_share_its_length(
    tiny: Detector,
) -> None:
    """U c, s / c and V are the same subspace: its relative gradients are the same, and they are the
    derivatives along relative changes.
    """
    _, rule = adapt(tiny, directions=1, penalties=None)
    (unit, *_) = rule.units
    found = []
    for scale in (1.0, 100.0):
        with torch.no_grad():
            unit.u.mul_(scale)
            unit.s.div_(scale)
        tiny.zero_grad()
        functional.binary_cross_entropy_with_logits(tiny(IMAGE), LABEL).backward()
        found.append([part.clone() for part in unit.relative_gradients()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(found[0][1], unit.s.grad * unit.s.detach())


def test_the_subspace_that_the_forgery_pulls_on_learns_though_its_singular_value_is_small() -> None:
    """One subspace's directions are pulled the same way in every step and its length at random; the
    other's length is, and its directions at random.

    With s next to nothing the gradients of U and V, which hold nearly all that a step can change W
    by, vanish beside that of s: counted as they are, the noise of one number would make the first
    subspace rest.
    """
    model = tiny_vit(depth=1)
    _, rule = adapt(
        model,
        patterns=["*attn.proj"],
        subspaces=2,
        directions=1,
        every=100,
        fraction=0.5,
        working_scale=False,
        penalties=None,
    )
    steady, noisy = rule.units
    generator = torch.Generator().manual_seed(0)
    pulls = [torch.randn(steady.u.shape[1], generator=generator) for _ in range(2)]
    for _ in range(30):
        for unit, pulled in ((steady, True), (noisy, False)):
            draws = [torch.randn(steady.u.shape[1], generator=generator) for _ in range(2)]
            along_u, along_v = pulls if pulled else draws
            along_s = torch.randn((), generator=generator) if pulled else torch.tensor(1.0)
            with torch.no_grad():
                unit.s.fill_(1e-4)
            # as the chain rule has it: s times the gradient of W along v
            unit.u.grad = along_u.view_as(unit.u) * 1e-4
            unit.v.grad = along_v.view_as(unit.v) * 1e-4
            unit.s.grad = along_s.view_as(unit.s)
        rule.observe()
    rule.choose_units()
    assert rule.active == [True, False]
    as_they_are = [unit.s.grad.abs() > 100 * unit.u.grad.norm() for unit in rule.units]  # pyright: ignore
    assert all(as_they_are)


def test_an_inactive_subspace_can_become_active_again(tiny: Detector) -> None:
    adaptation, rule = adapt(tiny, every=1, momentum=0.5)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in tiny.parameters() if parameter.requires_grad], lr=0.05
    )
    for _ in range(30):
        step(tiny, adaptation, optimizer)
    active = torch.tensor(rule.history.active)
    woke = (~active[:-1]) & active[1:]
    assert woke.any()


def test_the_rule_goes_on_from_its_state() -> None:
    """Two halves with the state handed over give the masks of one whole."""
    wholes = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model = tiny_vit()
        start = copy.deepcopy(model.state_dict())
        adaptation, rule = adapt(model)
        optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1
        )
        for _ in range(4):
            step(model, adaptation, optimizer)
        if parts == 2:
            state, tensors, base = rule.state_dict(), copy.deepcopy(adapter_state(model)), start
            random = torch.get_rng_state()
            model = tiny_vit()
            model.load_state_dict(base)
            adaptation, rule = adapt(model)
            load_state_dict(model, tensors, "a test")
            rule.load_state_dict(state)
            optimizer = torch.optim.SGD(
                [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1
            )
            torch.set_rng_state(random)
        for _ in range(4):
            step(model, adaptation, optimizer)
        wholes.append((rule.mean.clone(), rule.history, model(IMAGE)))
    assert torch.equal(wholes[0][0], wholes[1][0])
    assert wholes[0][1] == wholes[1][1]
    assert torch.equal(wholes[0][2], wholes[1][2])


def test_statistics_are_those_of_the_classification_loss_alone() -> None:
    """A penalty's gradient has no noise: counted in, it would make the least orthogonal subspaces
    win.
    """
    scores = []
    for penalties in ({}, {"orthogonality": 10.0}):
        torch.manual_seed(0)
        model = tiny_vit()
        adaptation, rule = adapt(model, penalties=penalties, every=100)
        with torch.no_grad():
            for unit in rule.units[::2]:
                unit.u.mul_(1.05)
        optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0
        )
        for _ in range(5):
            step(model, adaptation, optimizer)
        scores.append(rule.scores())
    torch.testing.assert_close(scores[0], scores[1])


def test_no_mask_is_made_of_a_single_step(tiny: Detector) -> None:
    """One step has no variance: every score would be 1 and the first layers would win."""
    adaptation, rule = adapt(tiny, every=1)
    optimizer = torch.optim.SGD(
        [parameter for parameter in tiny.parameters() if parameter.requires_grad], lr=0.1
    )
    step(tiny, adaptation, optimizer)
    assert rule.history.steps == []
    step(tiny, adaptation, optimizer)
    assert rule.history.steps == [2]
    assert max(rule.history.scores[0]) < 1


def test_gradients_that_are_no_numbers_and_layers_without_one_are_refused(tiny: Detector) -> None:
    _, rule = adapt(tiny, every=2)
    with pytest.raises(InputError, match=r"No gradient reaches the layer 'blocks\.0\.attn\.qkv'"):
        rule.observe()
    for _ in range(2):
        tiny(IMAGE).sum().backward()
    rule.units[3].u.grad.fill_(float("nan"))  # pyright: ignore
    rule.observe()
    with pytest.raises(InputError, match=r"training diverged; lower optimizer\.lr"):
        rule.observe()


def test_values_out_of_range_are_refused(tiny: Detector) -> None:
    for wrong in ({"every": 0}, {"momentum": 1.0}, {"momentum": 0.0}, {"fraction": 0.0}):
        with pytest.raises(InputError, match=rf"method\.{next(iter(wrong))}="):
            adapt(tiny, **wrong)
