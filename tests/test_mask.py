"""The layer mask: streaming moments = two-pass moments, scores in their range, choices as asked
for.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.fmsd import fmsd
from fmsd.peft.gradient_moments import Moments, domain_moments, gradient_moments
from fmsd.peft.mask import (
    LayerMask,
    Masking,
    ScoredLayer,
    block_name,
    choose_layers,
    layer_score,
    read_mask,
)
from fmsd.peft.subspace import subspace_layers
from fmsd.types import Frames
from tests.conftest import tiny_vit

NAMES = [f"blocks.{block_}.{layer}" for block_ in range(3) for layer in ("attn.qkv", "attn.proj")]


class Noise:
    """Training batches in two forgery domains; fakes of `a` are brighter, those of `b` darker."""

    domains = ("a", "b")
    mask = None

    def broadcast(self, value: Any) -> Any:
        return value

    def precision(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        generator = torch.Generator().manual_seed(3)
        for _ in range(count):
            label = torch.arange(6) % 2
            shift = {"a": 40, "b": -40, None: 40}[domain] * label.view(-1, 1, 1, 1)
            image = (torch.randint(60, 190, (6, 3, 32, 32), generator=generator) + shift).to(
                torch.uint8
            )
            yield Frames(image, label, label, torch.arange(6), torch.arange(6))


def gradients(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """Every micro-batch's gradient of every weight, (batches, elements) in double precision."""
    weights = {
        name: parameter for name, parameter in model.named_parameters() if parameter.ndim == 2
    }
    rows = [
        torch.autograd.grad(model(batch).square().mean(), list(weights.values()))
        for batch in batches
    ]
    return {
        name: torch.stack([row[place].flatten() for row in rows]).double()
        for place, name in enumerate(weights)
    }


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4))


def closures(model: nn.Module, batches: list[Tensor]) -> Iterator[Callable[[], Tensor]]:
    return (
        functools.partial(lambda batch: model(batch).square().mean(), batch) for batch in batches
    )


def test_streaming_moments_equal_those_of_all_gradients_kept(network: nn.Module) -> None:
    batches = list(torch.randn(7, 5, 6))
    kept = gradients(network, batches)
    weights = {
        name: parameter for name, parameter in network.named_parameters() if parameter.ndim == 2
    }
    found = gradient_moments(weights, closures(network, batches))
    for name, rows in kept.items():
        variance = rows.var(0, correction=1).sum().item()
        norm = rows.mean(0).square().sum().item()
        assert found[name].variance == pytest.approx(variance, rel=1e-5)
        assert found[name].norm == pytest.approx(norm, rel=1e-5)
        assert found[name].bias == pytest.approx(max(norm - variance / 7, 0), rel=1e-4)


def test_the_signal_is_an_unbiased_estimate_of_the_squared_expected_gradient() -> None:
    """Gradients are the inputs here, so their mean is known; without the subtraction the estimate
    would be off by Var / B = 2.
    """
    weight = nn.Parameter(torch.zeros(20))
    truth = torch.full((20,), 0.5)
    estimates = []
    for _ in range(300):
        inputs = truth + torch.randn(10, 20)
        found = gradient_moments(
            {"w": weight},
            [functools.partial(lambda row: (weight * row).sum(), row) for row in inputs],
        )
        estimates.append(found["w"].norm - found["w"].variance / 10)
    assert torch.tensor(estimates).mean().item() == pytest.approx(5.0, abs=0.3)


def test_domain_moments_equal_those_of_all_gradients_kept(network: nn.Module) -> None:
    domains = {
        "a": list(torch.randn(4, 5, 6)),
        "b": list(1 + torch.randn(6, 5, 6)),
        "c": list(torch.randn(3, 5, 6) - 1),
    }
    kept = {domain: gradients(network, batches) for domain, batches in domains.items()}
    weights = {
        name: parameter for name, parameter in network.named_parameters() if parameter.ndim == 2
    }
    found = domain_moments(
        weights, {domain: closures(network, batches) for domain, batches in domains.items()}
    )
    for name in weights:
        means = torch.stack([kept[domain][name].mean(0) for domain in domains])
        between = (means - means.mean(0)).square().sum(1).mean().item()
        within = sum(kept[domain][name].var(0, correction=1).sum().item() for domain in domains) / 3
        assert found[name].bias == pytest.approx(between, rel=1e-4)
        assert found[name].variance == pytest.approx(within, rel=1e-4)


def test_measuring_keeps_one_accumulator_per_layer_and_one_gradient_at_a_time() -> None:
    """At every gradient that arrives, no other layer holds one."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    weights = {
        name: parameter for name, parameter in model.named_parameters() if parameter.ndim == 2
    }
    alive: list[int] = []
    for weight in weights.values():
        weight.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(other.grad is not None for other in weights.values()))
        )
    gradient_moments(weights, closures(model, list(torch.randn(3, 4, 8))))
    assert alive == [1] * 15
    assert all(weight.grad is None for weight in weights.values())


def test_the_signal_to_noise_ratio_equals_that_of_all_gradients_kept(network: nn.Module) -> None:
    """Every entry has its own mean and variance; a block's score is the mean over the entries of
    all its layers.
    """
    batches = list(torch.randn(7, 5, 6))
    kept = gradients(network, batches)
    names = {"0.weight": "blocks.0.fc1", "2.weight": "blocks.0.fc2"}
    weights = {
        names[name]: parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim == 2
    }
    found = gradient_moments(weights, closures(network, batches), entrywise=True)
    ratios = {
        names[name]: rows.mean(0).square() / rows.var(0, correction=1)
        for name, rows in kept.items()
    }
    for name, own in ratios.items():
        assert layer_score(Masking(bias="snr"), found[name]) == pytest.approx(
            own.mean().item(), rel=1e-3
        )
    joint = choose_layers(Masking(bias="snr", unit="block"), list(weights), found)
    assert (
        joint.layers[0].score
        == joint.layers[1].score
        == pytest.approx(torch.cat([*ratios.values()]).mean().item(), rel=1e-3)
    )
    plain = gradient_moments(weights, closures(network, batches))
    assert all(plain[name] == own._replace(snr=0.0) for name, own in found.items())


def inputs_as_gradients(rows: dict[str, Tensor], entrywise: bool) -> dict[str, Moments]:
    """The moments of weights whose gradients are the given (batches, numbers)."""
    weights = {name: nn.Parameter(torch.zeros(own.shape[1])) for name, own in rows.items()}
    count = len(next(iter(rows.values())))

    def loss(place: int) -> Tensor:
        return torch.stack([(weights[name] * own[place]).sum() for name, own in rows.items()]).sum()

    return gradient_moments(
        weights, [functools.partial(loss, place) for place in range(count)], entrywise
    )


def test_one_loud_entry_hides_many_steady_ones_from_signal_and_not_from_snr() -> None:
    steady = 0.01 + 0.002 * torch.randn(16, 99)
    loud = 10 * torch.randn(16, 1)
    rows = {"a.0.loud": torch.cat([loud, steady], 1), "a.1.even": 1 + torch.randn(16, 100)}
    found = inputs_as_gradients(rows, entrywise=True)
    kept = {
        bias: choose_layers(Masking(bias=bias, fraction=0.5), list(rows), found).kept_names
        for bias in ("signal", "snr")
    }  # pyright: ignore
    assert kept == {"signal": ["a.1.even"], "snr": ["a.0.loud"]}


def test_entries_without_a_gradient_count_nothing_and_constant_ones_much() -> None:
    zeros, noise = torch.zeros(8, 3), torch.randn(8, 1)
    expected = (noise.mean().square() / noise.var()).item() / 4
    found = inputs_as_gradients(
        {"part": torch.cat([zeros, noise], 1), "none": zeros, "same": torch.full((8, 3), 0.3)},
        entrywise=True,
    )
    ratios = {name: layer_score(Masking(bias="snr"), own) for name, own in found.items()}
    assert ratios["part"] == pytest.approx(expected, rel=1e-4)
    assert ratios["none"] == 0.0
    assert 1e5 < ratios["same"] < math.inf


def measured(values: list[tuple[float, float]]) -> dict[str, Moments]:
    found = zip(NAMES, values, strict=True)
    return {
        name: Moments(bias, variance, bias + 1, place % 4, 8)
        for place, (name, (bias, variance)) in enumerate(found)
    }


VALUES = [(1.0, 1.0), (4.0, 1.0), (0.0, 1.0), (3.0, 1.0), (2.0, 1.0), (0.0, 0.0)]


def test_scores_lie_in_their_range_and_do_not_depend_on_the_scale_of_the_gradients() -> None:
    shares = [layer_score(Masking(), own) for own in measured(VALUES).values()]
    assert shares == pytest.approx([0.5, 0.8, 0.0, 0.75, 2 / 3, 0.0])
    scaled = [
        layer_score(Masking(), own)
        for own in measured([(100 * bias, 100 * variance) for bias, variance in VALUES]).values()
    ]
    assert scaled == pytest.approx(shares)
    assert layer_score(Masking(bias="norm"), Moments(3.0, 1.0, 4.0)) == 4.0


@pytest.mark.parametrize("unit", ["linear", "block"])
def test_a_layer_of_zeros_has_every_score(unit: str) -> None:
    """As a layer that is initialised with zeros, through the measurement itself."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8)) for _ in range(3)))
    with torch.no_grad():
        model[2][0].weight.zero_()  # pyright: ignore
    weights = {
        name: parameter for name, parameter in model.named_parameters() if parameter.ndim == 2
    }
    found = gradient_moments(weights, closures(model, list(torch.randn(3, 4, 8))))
    for bias in ("signal", "norm", "snr", "domain"):
        masking = Masking(bias=bias)
        assert all(
            math.isfinite(layer.score)
            for layer in choose_layers(replace(masking, unit=unit), list(weights), found).layers
        )  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [1, 3, 4]),
        ({"fraction": 0.2}, [1, 3]),
        ({"fraction": 1.0}, [0, 1, 2, 3, 4, 5]),
        ({"threshold": 0.75}, [1, 3]),
        ({"threshold": "mean"}, [0, 1, 3, 4]),
        ({"bias": "domain"}, [2, 5, 0]),
        ({"bias": "domain", "threshold": 0.5}, [0, 2, 5]),
        ({"bias": "none"}, [0, 1, 2, 3, 4, 5]),
        ({"bias": "snr"}, [1, 2, 3]),
        ({"bias": "snr", "threshold": 0.25}, [2, 3]),
        ({"unit": "block", "fraction": 0.4}, [0, 1, 4, 5]),
    ],
)
def test_a_mask_keeps_what_it_was_asked_to_keep(
    changes: dict[str, object], kept: list[int]
) -> None:
    chosen = choose_layers(Masking(**changes), NAMES, measured(VALUES))  # pyright: ignore
    assert set(chosen.kept_names) == {NAMES[place] for place in kept}
    assert [layer.name for layer in chosen.layers] == NAMES


def test_a_random_mask_follows_its_seed() -> None:
    masks = [
        choose_layers(Masking(bias="random", seed=seed), NAMES).kept_names
        for seed in (0, 0, 1, 2, 3)
    ]
    assert masks[0] == masks[1]
    assert len({tuple(mask) for mask in masks}) > 1
    assert all(len(mask) == 3 for mask in masks)


def test_the_block_of_a_layer_is_found_in_every_naming() -> None:
    names = {
        "blocks.3.attn.qkv": "blocks.3",
        "layers.2.blocks.10.mlp.fc1": "layers.2.blocks.10",
        "stages.0.blocks.1.mlp.fc2": "stages.0.blocks.1",
        "blocks.1.0.conv_pw": "blocks.1.0",
        "layer2.0.conv1": "layer2.0",
        "head.fc": "head.fc",
    }
    assert {name: block_name(name) for name in names} == names


def test_a_mask_measures_real_gradients_and_only_its_layers_are_decomposed(tiny: Detector) -> None:
    before = {
        name: parameter.detach().clone()
        for name, parameter in tiny.backbone.named_parameters()
        if not name.startswith("head")
    }
    adaptation = fmsd(
        tiny,
        Noise(),
        patterns=["attention", "mlp"],
        subspaces=2,
        directions=1,
        mask=Masking(batches=4, warmup_steps=3),
    )
    assert adaptation.mask is not None
    kept = adaptation.mask.kept_names
    assert len(kept) == 4
    assert [
        name
        for name, module in tiny.backbone.named_modules()
        if module in set(subspace_layers(tiny))
    ] == kept
    assert all(
        layer.bias is not None and layer.variance is not None and layer.variance > 0
        for layer in adaptation.mask.layers
    )
    learning = {
        name for name, parameter in tiny.backbone.named_parameters() if parameter.requires_grad
    }
    assert learning == {f"{name}.artifacts.0.{factor}" for name in kept for factor in "usv"} | {
        "head.weight",
        "head.bias",
    }
    assert tiny.training
    for name, parameter in tiny.backbone.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name])
            assert parameter.grad is None


def test_the_head_is_warmed_up_for_the_measuring_and_put_back() -> None:
    masks = []
    for steps in (0, 5):
        torch.manual_seed(0)
        model = tiny_vit()
        head = model.head().weight.detach().clone()  # pyright: ignore
        adaptation = fmsd(
            model,
            Noise(),
            patterns=["attention"],
            subspaces=1,
            directions=1,
            mask=Masking(batches=4, warmup_steps=steps),
        )
        masks.append(adaptation.mask)
        assert torch.equal(model.head().weight, head)  # pyright: ignore
    assert [layer.bias for layer in masks[0].layers] != [layer.bias for layer in masks[1].layers]


def test_the_domain_score_uses_every_domain_and_needs_two(tiny: Detector) -> None:
    asked: list[str | None] = []

    class Watched(Noise):
        def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
            asked.append(domain)
            return super().draw(count, domain)

    masking = Masking(bias="domain", batches=6, warmup_steps=0)
    mask = fmsd(
        tiny, Watched(), patterns=["attention"], subspaces=1, directions=1, mask=masking
    ).mask
    assert mask is not None
    assert asked == [None, "a", "b"]
    ranked = sorted(mask.layers, key=lambda layer: layer.score)
    assert [layer.kept for layer in ranked] == [True, True, False, False]

    class Single(Noise):
        domains = ("a",)

    with pytest.raises(InputError, match=r"compares forgery domains.*choose signal"):
        fmsd(tiny_vit(), Single(), patterns=["attention"], subspaces=1, directions=1, mask=masking)


def test_no_gradient_is_measured_below_the_lowest_layer_that_learns(tiny: Detector) -> None:
    """With the upper half of the blocks learning, the lower half's activations need no backward
    pass.
    """
    fmsd(tiny, patterns=["blocks.1.attn.*"], subspaces=1, directions=1)
    seen: dict[str, bool] = {}
    for name in ("blocks.0", "blocks.1"):
        tiny.backbone.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.requires_grad})
        )
    tiny(torch.rand(2, 3, 32, 32))
    assert seen == {"blocks.0": False, "blocks.1": True}


def test_a_written_mask_is_reused_without_data(tiny: Detector, tmp_path: Path) -> None:
    first = fmsd(
        tiny,
        Noise(),
        patterns=["attention"],
        subspaces=1,
        directions=1,
        mask=Masking(batches=3, warmup_steps=1),
    ).mask
    assert first is not None
    path = tmp_path / "mask.json"
    path.write_text(first.text())
    again = fmsd(
        tiny_vit(), patterns=["attention"], subspaces=1, directions=1, mask=Masking(file=str(path))
    ).mask
    assert again is not None
    assert again.layers == first.layers
    content = json.loads(path.read_text())
    assert set(content["layers"][0]) == {"name", "score", "kept", "bias", "variance"}
    assert content["settings"]["bias"] == "signal"


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.json"
    with pytest.raises(InputError, match=r"There is no mask .*mask\.json"):
        read_mask(path, NAMES)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"is damaged: .*; give the mask\.json of a run"):
        read_mask(path, NAMES)
    path.write_text(LayerMask({}, (ScoredLayer("other", 1.0, True),)).text())
    with pytest.raises(InputError, match=r"is about other layers .*method\.patterns"):
        read_mask(path, NAMES)
    path.write_text(LayerMask({}, ()).text().replace('"format": 1', '"format": 7'))
    with pytest.raises(InputError, match=r"format 7; this version reads format 1"):
        read_mask(path, NAMES)


def test_settings_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch, tiny: Detector) -> None:
    # which would refuse some of them first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for wrong in (
        {"bias": "loud"},
        {"unit": "head"},
        {"fraction": 0},
        {"fraction": 1.5},
        {"threshold": "median"},
        {"batches": 1},
        {"warmup_lr": 0},
    ):
        with pytest.raises(InputError, match=f"method.mask.{next(iter(wrong))}="):
            Masking(**wrong)  # pyright: ignore
    with pytest.raises(InputError, match=r"No layer passes method\.mask\.threshold=2"):
        choose_layers(Masking(threshold=2.0), NAMES, measured(VALUES))
    with pytest.raises(InputError, match=r"needs training batches"):
        fmsd(tiny, patterns=["attention"], subspaces=1, directions=1, mask=Masking())


def test_too_few_batches_and_gradients_that_are_no_numbers_are_refused(network: nn.Module) -> None:
    weights = {"0.weight": network.get_parameter("0.weight")}
    with pytest.raises(
        InputError, match=r"at least 2 batches and got 1; raise trainer\.limit_train_batches"
    ):
        gradient_moments(weights, closures(network, [torch.randn(2, 6)]))
    with pytest.raises(InputError, match=r"gradients of '0\.weight' are not finite"):
        gradient_moments(weights, closures(network, [torch.full((2, 6), float("nan"))] * 2))
