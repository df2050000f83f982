"""Spectra of effective weights: the base's before training, and after it only what the method
moves.
"""

import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmsd.models.detector import Detector, detector
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import fold_layers
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from fmsd.peft.spectra import effective_spectra, sample_matrices, spectra_json
from tests.conftest import METHODS, SUBSPACES, step, tiny_vit

RANK = SUBSPACES["subspaces"] * SUBSPACES["directions"]


def values(weight: Tensor) -> np.ndarray:
    return np.linalg.svd(weight.detach().double().numpy(), compute_uv=False)


def parts(model: Detector, name: str) -> Tensor:
    """A matrix of a plain model by the name that `watched` gives it."""
    layer, _, letter = name.rpartition(".")
    state = model.backbone.state_dict()
    if letter in ("q", "k", "v"):
        width = state[f"{layer}.weight"].shape[0] // 3
        start = "qkv".index(letter) * width
        return state[f"{layer}.weight"][start : start + width]
    return state[f"{name}.weight"].flatten(1)


def trained(model: Detector, method: Any, steps: int = 2) -> None:
    """Takes steps on noise."""
    adaptation = method(model, None)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2
    )
    for _ in range(steps):
        step(
            model,
            adaptation,
            optimizer,
            torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
            torch.tensor([0.0, 1, 0, 1]),
        )


@pytest.mark.parametrize("name", list(METHODS))
def test_before_training_they_are_those_of_the_base(name: str) -> None:
    plain, model = tiny_vit(), tiny_vit()
    model.load_state_dict(plain.state_dict())
    METHODS[name](model, None)
    names = sample_matrices(model)
    assert names
    for matrix, found in effective_spectra(model, names).items():
        np.testing.assert_allclose(found, values(parts(plain, matrix)), rtol=1e-4, atol=1e-6)
        assert found == sorted(found, reverse=True)
        assert all(value == float(f"{value:.6g}") for value in found)


def test_fused_layers_are_told_apart_and_the_head_and_frozen_layers_are_left_out() -> None:
    model = tiny_vit()
    METHODS["lora"](model, None)
    assert sample_matrices(model) == [
        f"blocks.{block}.attn.{layer}"
        for block in (0, 1)
        for layer in ("qkv.q", "qkv.k", "qkv.v", "proj")
    ]
    assert sample_matrices(model, 3) == [
        "blocks.0.attn.qkv.q",
        "blocks.1.attn.qkv.q",
        "blocks.1.attn.proj",
    ]
    for method in (probe, norm, bitfit):
        model = tiny_vit()
        method(model, None)
        assert sample_matrices(model) == []
    model = tiny_vit(depth=4)
    full(model, None)
    names = sample_matrices(model)
    assert len(names) == len(set(names)) == 12
    assert (names[0], names[-1]) == ("blocks.0.attn.qkv.q", "blocks.3.mlp.fc2")


def test_pointwise_convolutions_are_matrices() -> None:
    model = detector("tf_efficientnet_lite0", 32)
    full(model, None)
    names = sample_matrices(model, 5)
    for name, found in effective_spectra(model, names).items():
        np.testing.assert_allclose(found, values(parts(model, name)), rtol=1e-4, atol=1e-6)


def test_the_hard_constraint_keeps_semantic_values_and_the_others_are_the_directions_weights() -> (
    None
):
    model = tiny_vit()
    method = functools.partial(
        fmsd, **SUBSPACES | {"patterns": ["attention", "mlp"]}, constraint="hard"
    )
    adaptation = method(model, None)
    names = sample_matrices(model, 100)
    before = effective_spectra(model, names)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2
    )
    step(
        model,
        adaptation,
        optimizer,
        torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
        torch.tensor([0.0, 1, 0, 1]),
    )
    after = effective_spectra(model, names)
    moved = 0
    for name in names:
        layer, _, letter = name.rpartition(".")
        own: Any = model.backbone.get_submodule(layer if letter in ("q", "k", "v") else name)
        weights = (
            own.s[max(0, "qkv".find(letter)) if letter in ("q", "k", "v") else 0]
            .detach()
            .abs()
            .tolist()
        )
        expected = sorted(before[name][:-RANK] + weights, reverse=True)
        np.testing.assert_allclose(after[name], expected, rtol=1e-3, atol=2e-5)
        moved += not np.allclose(before[name], after[name], atol=1e-3)
    assert moved > len(names) / 2


def test_under_the_soft_constraint_at_most_the_rank_of_the_change_moves() -> None:
    plain, model = tiny_vit(), tiny_vit()
    model.load_state_dict(plain.state_dict())
    trained(model, METHODS["fmsd"])
    for name, after in effective_spectra(model, sample_matrices(model)).items():
        before = values(parts(plain, name))
        change = values(parts(fold_copy(model), name) - parts(plain, name))
        assert np.abs(np.array(after) - before).max() <= change[0] + 1e-5  # Weyl
        assert (change[2 * RANK :] < 1e-4).all()
        assert not np.allclose(after, before, atol=1e-4)


def fold_copy(model: Detector) -> Detector:
    """The folded model, in a model of its own."""
    other = tiny_vit()
    weights = {
        name: module.weight.detach()
        for name, module in model.backbone.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    }
    own = other.backbone.state_dict()
    for name, weight in weights.items():
        if f"{name}.weight" in own:
            own[f"{name}.weight"].copy_(weight)
    return other


@pytest.mark.parametrize("name", list(METHODS))
def test_folding_changes_none_of_them(name: str) -> None:
    model = tiny_vit()
    trained(model, METHODS[name])
    names = sample_matrices(model)
    before = effective_spectra(model, names)
    fold_layers(model.backbone)
    assert effective_spectra(model, names) == before


def test_the_text_is_json_of_both() -> None:
    before, after = {"a": [2.0, 1.0], "b.q": [3.0]}, {"a": [2.0, 1.5], "b.q": [3.5]}
    assert json.loads(spectra_json(before, after)) == {
        "layers": {
            "a": {"before": [2.0, 1.0], "after": [2.0, 1.5]},
            "b.q": {"before": [3.0], "after": [3.5]},
        }
    }
