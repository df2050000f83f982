"""The LoRA experts of MoE-FFD: routing against a loop over tokens, and what cannot be routed."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.optim.groups import trainable_parameters
from fmsd.peft.moe_lora import RoutedLinear, moe_lora
from tests.conftest import tiny_vit
from tests.test_families import BY_NAME, build, refusal, stir

RANKS = [1, 2, 4]
RELEASED = [8, 16, 32, 48, 64, 96, 128]


def routed(top: int = 1, **changes: Any) -> RoutedLinear:
    layer = RoutedLinear(nn.Linear(6, 10), RANKS, top, **changes)
    stir(layer)
    return layer.eval()


def experts(layer: RoutedLinear) -> list[Tensor]:
    """B_k A_k of every expert."""
    rows = layer.a.split(layer.ranks)
    columns = layer.b.split(layer.ranks, 1)
    return [b @ a for a, b in zip(rows, columns, strict=True)]


def by_loop(layer: RoutedLinear, x: Tensor) -> Tensor:
    """One token after the other."""
    updates, tokens = experts(layer), []
    for token in x.flatten(0, -2):
        probabilities = (layer.gate @ token).softmax(0)
        chosen = probabilities.argsort(descending=True)[: layer.top].tolist()
        update = sum(probabilities[k] * (updates[k] @ token) for k in chosen)
        tokens.append(layer.frozen @ token + layer.bias + update)  # pyright: ignore
    return torch.stack(tokens).unflatten(0, x.shape[:-1])


def test_a_vit_b16_with_the_released_ranks_has_the_released_number_of_parameters() -> None:
    """12 blocks: experts of 768 inputs and 3 * 768 outputs, a gate and its noise."""
    model = meta_detector(functools.partial(detector, "vit_base_patch16_224", 224))
    moe_lora(model, patterns=["attention", "!*.proj"], ranks=RELEASED)
    count = sum(parameter.numel() for parameter in trainable_parameters(model))
    assert count == 12 * (392 * (768 + 2304) + 2 * 7 * 768) + 769 == 14_579_712 + 769


@pytest.mark.parametrize("shape", [(5, 6), (2, 7, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("top", [1, 2, 3])
def test_the_update_is_that_of_a_loop_over_tokens(top: int, shape: tuple[int, ...]) -> None:
    layer, x = routed(top), torch.randn(shape)
    found, expected = layer(x), by_loop(layer, x)
    torch.testing.assert_close(found, expected)
    own = [layer.a, layer.b, layer.gate]
    weight = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), own),
        torch.autograd.grad((expected * weight).sum(), own),
        strict=True,
    ):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_a_token_reaches_its_own_experts_alone() -> None:
    layer, token = routed(), torch.randn(1, 6)
    (chosen,) = layer.gates(token)[0].nonzero().flatten().tolist()
    layer(token).sum().backward()
    for expert, rows in enumerate(layer.a.grad.split(RANKS)):  # pyright: ignore
        assert bool(rows.abs().sum() > 0) == (expert == chosen)


def test_with_equal_logits_as_many_experts_are_chosen_as_asked_for() -> None:
    for top in (1, 2):
        layer = RoutedLinear(nn.Linear(6, 10), RANKS, top).eval()
        gates = layer.gates(torch.randn(4, 6))
        assert ((gates > 0).sum(-1) == top).all()
        torch.testing.assert_close(gates.sum(-1), torch.full((4,), top / 3))


def test_noise_acts_in_training_and_spreads_tokens_over_all_experts() -> None:
    layer, x = RoutedLinear(nn.Linear(6, 10), RANKS), torch.randn(3000, 6)
    layer.eval()
    assert torch.equal(layer.gates(x), layer.gates(x))
    layer.train()
    shares = (layer.gates(x) > 0).float().mean(0)
    assert ((shares - 1 / 3).abs() < 0.05).all()
    quiet = RoutedLinear(nn.Linear(6, 10), RANKS, noise=False).train()
    assert quiet.noise is None
    assert torch.equal(quiet.gates(x), quiet.gates(x))
    logits = torch.log(layer.gates(x).amax(-1))
    assert logits.std() > 0.01


def test_the_noise_is_trained_by_the_loss() -> None:
    layer = routed().train()
    layer(torch.randn(50, 6)).square().sum().backward()
    assert layer.noise is not None
    assert layer.noise.grad is not None
    assert layer.noise.grad.abs().sum() > 0


def test_a_reduced_precision_gives_about_the_same() -> None:
    layer, x = routed(3), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.1)


def test_the_gates_are_computed_in_full_precision_under_autocast() -> None:
    layer, x = routed(), torch.randn(200, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.gates(x)
    assert torch.equal(found, layer.gates(x))


# ---- what is refused


@pytest.mark.parametrize(
    "name",
    [
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
        "swinv2_tiny_window8_256",
        "vit_small_patch16_dinov3_qkvb",
    ],
)
def test_a_backbone_that_reads_the_weight_is_refused_and_unchanged(name: str) -> None:
    model = build(BY_NAME[name])
    before = [type(module) for module in model.modules()]
    sentence = refusal(lambda: moe_lora(model, patterns=["attention"], ranks=RANKS))
    assert "reads the weight of the layer '" in sentence
    assert "instead of calling it" in sentence
    assert "method=lora" in sentence
    assert [type(module) for module in model.modules()] == before


def test_a_weight_that_is_read_all_the_same_is_never_a_silent_one() -> None:
    with pytest.raises(InputError, match="reads the weight of a layer with experts"):
        _ = routed().weight


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranks": [4]}, "method.ranks=[4] are not the ranks of two or more experts"),
        ({"ranks": [4, 0]}, "method.ranks=[4, 0] are not the ranks"),
        ({"top": 0}, "method.top=0 is out of range: there are 3 experts"),
        ({"top": 4}, "method.top=4 is out of range: there are 3 experts"),
        ({"patterns": ["nothing"]}, "The pattern 'nothing' matches no matrix"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"patterns": ["attention"], "ranks": RANKS} | changes
    assert words in refusal(lambda: moe_lora(tiny_vit(), **settings))


def test_a_convolution_is_refused() -> None:
    model: Detector = build(BY_NAME["convnext_atto"])
    sentence = refusal(lambda: moe_lora(model, patterns=["mlp"], ranks=RANKS))
    assert "routes tokens, and 'stages.0.blocks.0.mlp.fc1' is a convolution" in sentence
    assert "'!stages.0.blocks.0.mlp.fc1'" in sentence
