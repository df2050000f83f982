"""AdaptFormer: the paper's formula, its number of parameters, and where bottlenecks are put."""

import functools
from typing import Any

import pytest
import torch
from timm.layers.mlp import ConvMlp, Mlp
from torch import nn
from torch.nn import functional

from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.optim.groups import decay_groups, trainable_parameters
from fmsd.peft.adaptformer import AdaptedMlp, adaptformer, mlp_names
from tests.conftest import tiny_vit
from tests.test_families import BY_NAME, SWIN, build, refusal, stir


def adapted(**changes: Any) -> Detector:
    model = tiny_vit(depth=1)
    adaptformer(model, **({"bottleneck": 5, "scale": 0.3} | changes))
    stir(model)
    return model.eval()


def test_a_clip_vit_l14_has_3_17_million_parameters_to_train() -> None:
    model = meta_detector(functools.partial(detector, "vit_large_patch14_clip_224", 224))
    adaptformer(model, bottleneck=64, scale=0.1)
    count = sum(parameter.numel() for parameter in trainable_parameters(model))
    assert count == 24 * (1024 * 64 + 64 + 64 * 1024 + 1024) + 1025 == 3_171_840 + 1025


@torch.no_grad()
def test_a_block_computes_the_formula_of_the_paper() -> None:
    model: Any = adapted(dropout=0.5)
    block = model.backbone.blocks[0]
    x = torch.randn(2, 17, 24)
    inner = x + block.attn(block.norm1(x))
    normed, own = block.norm2(inner), block.mlp
    bottleneck = (normed @ own.down.weight.T + own.down.bias).relu()
    expected = inner + own.mlp(normed) + 0.3 * (bottleneck @ own.up.weight.T + own.up.bias)
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_a_bottleneck_of_convolutions_is_that_of_linear_layers() -> None:
    linear, convolution = Mlp(6, 12), ConvMlp(6, 12, act_layer=nn.GELU)
    for one, other in ((linear.fc1, convolution.fc1), (linear.fc2, convolution.fc2)):
        other.weight.copy_(one.weight[..., None, None])  # pyright: ignore
        other.bias.copy_(one.bias)  # pyright: ignore
    last, first = AdaptedMlp(linear, 3, 0.5).eval(), AdaptedMlp(convolution, 3, 0.5).eval()
    stir(last)
    for name in ("down.weight", "down.bias", "up.weight", "up.bias"):
        first.get_parameter(name).copy_(last.get_parameter(name))
    x = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(first(x), last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_dropout_acts_between_the_projections_in_training_alone() -> None:
    model: Any = adapted(dropout=0.5)
    own, x = model.backbone.blocks[0].mlp, torch.randn(2, 17, 24)
    assert torch.equal(own(x), own(x))
    torch.manual_seed(3)
    found = own.train()(x)
    torch.manual_seed(3)
    code = functional.dropout((own.down(x)).relu(), 0.5)
    torch.testing.assert_close(found, own.mlp(x) + 0.3 * own.up(code))


def test_pooling_and_head_have_no_bottleneck() -> None:
    model = build(BY_NAME["vit_base_patch16_siglip_224"])
    assert "attn_pool.mlp" in dict(model.backbone.named_modules())
    adaptformer(model, bottleneck=4, scale=0.1)
    found = [name for name, part in model.named_modules() if isinstance(part, AdaptedMlp)]
    assert found == ["backbone.blocks.0.mlp"]


@pytest.mark.parametrize(
    ("name", "size", "changes", "beside"),
    [
        ("swinv2_cr_tiny_224", 32, SWIN | {"depths": (1,), "num_heads": (2,)}, "attn.meta_mlp"),
        ("maxvit_rmlp_nano_rw_256", 256, {}, "attn.rel_pos.mlp"),
    ],
)
def test_an_mlp_inside_of_an_attention_has_no_bottleneck(
    name: str, size: int, changes: dict[str, Any], beside: str
) -> None:
    model = meta_detector(functools.partial(detector, name, size, **changes))
    modules = {module for module, _ in model.backbone.named_modules()}
    assert any(module.endswith(beside) for module in modules)
    found = mlp_names(model)
    assert {module.rpartition(".")[2] for module in found} == {"mlp"}
    assert not any(module.endswith(beside) for module in found)
    assert found


def test_an_mlp_that_weights_channels_has_no_bottleneck() -> None:
    model = meta_detector(functools.partial(detector, "gcresnet50t", 32))
    assert "ByobNet has no MLP" in refusal(lambda: adaptformer(model, bottleneck=4, scale=0.1))


def test_projections_decay_and_biases_do_not() -> None:
    model = adapted()
    groups: Any = decay_groups(model, 0.1)
    decayed, undecayed = (group["params"] for group in groups)
    own: Any = model.backbone.blocks[0].mlp  # pyright: ignore
    assert set(decayed) == {own.down.weight, own.up.weight, model.head().weight}  # pyright: ignore
    assert set(undecayed) == {own.down.bias, own.up.bias, model.head().bias}  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bottleneck": 0}, "method.bottleneck=0 is no width"),
        ({"scale": 0.0}, "method.scale=0.0 would switch the adapters off"),
        ({"dropout": 1.0}, "method.dropout=1.0 is no probability below 1"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: adapted(**changes))


def test_a_cnn_without_mlps_is_refused_and_unchanged() -> None:
    model = build(BY_NAME["resnet50"])
    sentence = refusal(lambda: adaptformer(model, bottleneck=4, scale=0.1))
    assert "ResNet has no MLP" in sentence
    assert "method=lora" in sentence
    assert all(parameter.requires_grad for parameter in model.parameters())
