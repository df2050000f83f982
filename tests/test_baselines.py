"""Laws of LoRA, DoRA, norm tuning and BitFit; the first two are held against the peft package."""

import copy
import json
from collections.abc import Callable, Mapping
from types import ModuleType

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector
from fmsd.optim.groups import decay_groups
from fmsd.peft.bitfit import bitfit
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import LoraLinear, lora
from fmsd.peft.norm import norm
from tests.conftest import tiny_vit

IMAGE = torch.rand(3, 3, 32, 32)
HEAD = {"backbone.head.weight", "backbone.head.bias"}
PLAIN: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(10, 6),
    "bare": lambda: nn.Linear(10, 6, bias=False),
    "pointwise": lambda: nn.Conv2d(10, 6, 1, stride=2),
    "bare pointwise": lambda: nn.Conv2d(10, 6, 1, stride=(1, 2), bias=False),
}
both = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
every_kind = pytest.mark.parametrize("kind", list(PLAIN))


def adapt(
    model: Detector,
    *patterns: str,
    rank: int = 3,
    alpha: float = 6,
    dropout: float = 0.0,
    dora: bool = False,
) -> Detector:
    adaptation = lora(
        model,
        patterns=patterns or ("attention",),
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        dora=dora,
    )
    assert not adaptation.penalties
    return model


def stir(model: nn.Module) -> None:
    """Moves every trainable parameter away from its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def layers(model: nn.Module) -> dict[str, LoraLinear]:
    return {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)
    }


def stirred(kind: str, dora: bool, dropout: float = 0.0) -> tuple[nn.Module, LoraLinear]:
    plain = PLAIN[kind]()
    layer = LoraLinear(plain, 3, 6, dropout, dora)  # pyright: ignore[reportArgumentType]
    stir(layer)
    return plain, layer


def check_compiled_and_mixed(layer: nn.Module, parameter: nn.Parameter, x: torch.Tensor) -> None:
    """Checks that a layer compiles into one graph, and its gradient in mixed precision.

    Args:
        parameter: of the layer.
        x: its input.
    """
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    exact = torch.autograd.grad(layer(x).square().sum(), parameter)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    gradient = torch.autograd.grad(y.float().square().sum(), parameter)[0]
    assert gradient.dtype == torch.float32
    assert (gradient - exact).norm() < 0.03 * exact.norm()


def inputs(kind: str) -> torch.Tensor:
    return torch.randn(2, 10, 5, 7) if "pointwise" in kind else torch.randn(2, 5, 10)


def apply(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What a plain layer would give with another weight."""
    return torch.func.functional_call(layer, {"weight": weight}, x)


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def train(model: nn.Module, image: torch.Tensor = IMAGE) -> None:
    """Three steps of AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (model(image) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        optimizer.step()


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    assert list(before) == list(after)
    return {key for key in before if not torch.equal(before[key], after[key])}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for kind in (model.named_parameters(), model.named_buffers())
        for name, tensor in kind
    }


def test_lora_starts_as_the_pretrained_detector_bit_for_bit(tiny: Detector) -> None:
    before = tiny(IMAGE)
    assert torch.equal(adapt(tiny, "attention", "mlp", dropout=0.5)(IMAGE), before)


def test_dora_starts_as_the_pretrained_detector(tiny: Detector) -> None:
    before = tiny(IMAGE)
    torch.testing.assert_close(
        adapt(tiny, "attention", "mlp", dora=True)(IMAGE), before, rtol=1e-5, atol=1e-6
    )


@both
def test_a_cnn_starts_as_the_pretrained_detector(dora: bool) -> None:
    model = detector("tf_efficientnet_lite0", size=32).eval()
    before = model(IMAGE)
    adapt(model, "pointwise", dora=dora).eval()
    assert {layer.stride for layer in layers(model).values()} == {(1, 1)}
    torch.testing.assert_close(model(IMAGE), before, rtol=1e-4, atol=1e-5)


@both
@every_kind
def test_factored_forward_effective_weight_and_fold_agree(kind: str, dora: bool) -> None:
    plain, layer = stirred(kind, dora)
    x, folded = inputs(kind), layer.fold()
    assert layer.weight.shape == plain.weight.shape
    assert not torch.allclose(layer.weight, plain.weight)  # pyright: ignore[reportArgumentType]
    expected = apply(plain, x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)
    assert type(folded) is type(plain)
    assert {key: value.shape for key, value in folded.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }


@both
@every_kind
def test_the_effective_weight_passes_the_gradients_of_the_forward_pass(
    kind: str, dora: bool
) -> None:
    plain, layer = stirred(kind, dora)
    x = inputs(kind)
    weights = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    called = torch.autograd.grad(layer(x).square().sum(), weights)
    read = torch.autograd.grad(apply(plain, x, layer.weight).square().sum(), weights)
    for one, other in zip(called, read, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_dora_keeps_the_rows_at_their_magnitude() -> None:
    _, layer = stirred("linear", dora=True)
    torch.testing.assert_close(layer.weight.norm(dim=1), layer.magnitude)


@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_dora_of_a_weight_of_zeros_is_finite(kind: str) -> None:
    plain = PLAIN[kind]()
    nn.init.zeros_(plain.weight)  # pyright: ignore[reportArgumentType]
    layer = LoraLinear(plain, 2, 4, dora=True)  # pyright: ignore[reportArgumentType]
    x = inputs(kind)
    torch.testing.assert_close(layer(x), plain(x))
    layer(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in (layer.a, layer.b, layer.magnitude))  # pyright: ignore


@both
def test_keys_after_fold_are_timms_and_the_outputs_stay(tiny: Detector, dora: bool) -> None:
    shapes = {key: value.shape for key, value in tiny.state_dict().items()}
    adapt(tiny, "attention", "mlp", dora=dora)
    stir(tiny)
    adapted = tiny(IMAGE)
    fold_layers(tiny.backbone)
    assert {key: value.shape for key, value in tiny.state_dict().items()} == shapes
    torch.testing.assert_close(tiny(IMAGE), adapted, rtol=1e-4, atol=1e-5)


@both
def test_only_the_update_and_the_head_learn_and_the_rest_stays_bit_equal(
    tiny: Detector, dora: bool
) -> None:
    adapt(tiny, dora=dora)
    factors = ("a", "b", "magnitude") if dora else ("a", "b")
    update = {
        f"backbone.blocks.{block}.attn.{layer}.{factor}"
        for block in (0, 1)
        for layer in ("qkv", "proj")
        for factor in factors
    }
    assert learning(tiny) == update | HEAD
    before = snapshot(tiny)
    train(tiny)
    assert changed(before, snapshot(tiny)) == update | HEAD


def test_a_frozen_batch_norm_beside_an_update_keeps_its_statistics() -> None:
    model = adapt(detector("tf_efficientnet_lite0", size=32), "blocks.1.0.conv_pw")
    before = snapshot(model)
    train(model)
    update = {f"backbone.blocks.1.0.conv_pw.{factor}" for factor in "ab"}
    assert changed(before, snapshot(model)) == update | {
        "backbone.classifier.weight",
        "backbone.classifier.bias",
    }


@both
def test_weight_decay_pulls_the_matrices_only(tiny: Detector, dora: bool) -> None:
    adapt(tiny, dora=dora)
    decayed, spared = decay_groups(tiny, 0.1)
    assert all(
        any(parameter is own for own in decayed["params"])
        for layer in layers(tiny).values()
        for parameter in (layer.a, layer.b)
    )  # pyright: ignore
    assert all(parameter.ndim == 1 for parameter in spared["params"])  # pyright: ignore


def test_an_update_is_small_on_disk_and_rebuilt_from_its_description() -> None:
    plain, layer = stirred("pointwise", dora=True, dropout=0.25)
    assert set(layer.state_dict()) == {"a", "b", "bias", "magnitude"}
    description = layer.describe()
    assert (
        json.loads(json.dumps(description))
        == description
        == {
            "rank": 3,
            "alpha": 6,
            "dropout": 0.25,
            "dora": True,
            "init": "kaiming",
            "scaling": "standard",
        }
    )
    again = LoraLinear(plain, **description)  # pyright: ignore[reportArgumentType]
    again.load_state_dict(layer.state_dict())
    x = inputs("pointwise")
    assert torch.equal(again.eval()(x), layer.eval()(x))


@both
@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_dropout_acts_on_the_update_alone_and_in_training_only(kind: str, dora: bool) -> None:
    plain, layer = stirred(kind, dora, dropout=0.5)
    x = inputs(kind)
    assert not torch.equal(layer.train()(x), layer(x))
    torch.testing.assert_close(layer.eval()(x), apply(plain, x, layer.weight), rtol=1e-5, atol=1e-5)
    nn.init.zeros_(layer.b)
    expected = apply(plain, x, layer.weight)
    torch.testing.assert_close(layer.train()(x), expected, rtol=1e-5, atol=1e-5)


@both
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("beit_base_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}),
        (
            "swinv2_tiny_window8_256",
            {
                "img_size": 64,
                "window_size": 2,
                "embed_dim": 12,
                "depths": (1, 1),
                "num_heads": (2, 2),
            },
        ),
    ],
)
def test_gradients_reach_the_update_where_the_backbone_reads_the_weight(
    name: str, arguments: dict[str, int], dora: bool
) -> None:
    model = detector(name, size=64, **arguments).eval()  # Swin v2 drops paths in training
    image = torch.rand(2, 3, arguments["img_size"], arguments["img_size"])
    stir(model)  # Swin v2 starts with norms of weight zero
    before = model(image)
    adapt(model, dora=dora)
    torch.testing.assert_close(model(image), before, rtol=1e-4, atol=1e-4)
    stir(model)
    (model(image) * torch.tensor([1.0, -2.0])).sum().backward()
    assert layers(model)
    for layer in layers(model).values():
        for parameter in (layer.a, layer.b, layer.magnitude):
            assert parameter is None or parameter.grad.abs().sum() > 0  # pyright: ignore


@both
@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_autocast_keeps_parameters_and_gradients_in_single_precision(kind: str, dora: bool) -> None:
    plain, layer = stirred(kind, dora)
    x = inputs(kind)
    weights = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    exact = torch.autograd.grad(layer(x).square().sum(), weights)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == plain(x).dtype == torch.bfloat16
    for gradient, expected in zip(
        torch.autograd.grad(y.float().square().sum(), weights), exact, strict=True
    ):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.03 * expected.norm()


@both
def test_parameters_follow_the_dtype_of_the_layer(dora: bool) -> None:
    layer = LoraLinear(nn.Linear(10, 6, dtype=torch.float64), 2, 4, dora=dora)
    assert {
        tensor.dtype
        for tensor in (
            *layer.parameters(),
            *layer.buffers(),
            layer.weight,
            *layer.fold().parameters(),
        )
    } == {torch.float64}


@both
@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_the_layer_compiles_into_one_graph(
    kind: str, dora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # the check of shapes while tests run does not compile
    _, layer = stirred(kind, dora)
    x = inputs(kind)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"method\.rank=0 .*at least 1"),
        ({"alpha": 0}, r"method\.alpha=0 .*above 0"),
        ({"alpha": -1.0}, r"method\.alpha=-1\.0 .*above 0"),
        ({"dropout": 1.0}, r"method\.dropout=1\.0 .*less than 1"),
        ({"dropout": -0.1}, r"method\.dropout=-0\.1 .*less than 1"),
    ],
)
def test_numbers_out_of_range_are_refused_and_the_detector_is_left_alone(
    tiny: Detector, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        adapt(tiny, **changes)  # pyright: ignore[reportArgumentType]
    assert not layers(tiny)
    assert all(parameter.requires_grad for parameter in tiny.parameters())


def test_a_pattern_without_a_match_is_refused(tiny: Detector) -> None:
    with pytest.raises(InputError, match=r"'pointwise' matches no matrix of VisionTransformer"):
        adapt(tiny, "pointwise")


BLOCK_NORMS = [f"blocks.{block}.norm{place}" for block in (0, 1) for place in (1, 2)]
NORMS = {
    f"backbone.{layer}.{own}" for layer in (*BLOCK_NORMS, "norm") for own in ("weight", "bias")
}


def test_norm_chooses_the_norms_of_a_vit_and_the_rest_stays_bit_equal(tiny: Detector) -> None:
    assert not norm(tiny).penalties
    assert learning(tiny) == NORMS | HEAD
    before = snapshot(tiny)
    train(tiny)
    assert changed(before, snapshot(tiny)) == NORMS | HEAD


def test_bitfit_chooses_the_biases_of_a_vit_and_the_rest_stays_bit_equal(tiny: Detector) -> None:
    assert not bitfit(tiny).penalties
    linear = {
        f"backbone.blocks.{block}.{layer}.bias"
        for block in (0, 1)
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    biases = (
        linear
        | {name for name in NORMS if name.endswith("bias")}
        | {"backbone.patch_embed.proj.bias"}
    )
    assert learning(tiny) == biases | HEAD
    before = snapshot(tiny)
    train(tiny)
    assert changed(before, snapshot(tiny)) == biases | HEAD


@pytest.mark.parametrize(("method", "owns"), [(norm, ("weight", "bias")), (bitfit, ("bias",))])
def test_norm_and_bitfit_choose_the_batch_norms_of_a_cnn(
    method: Callable[[Detector], object], owns: tuple[str, ...]
) -> None:
    model = detector("tf_efficientnet_lite0", size=32)
    method(model)
    batch_norms = {
        name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert len(batch_norms) == 49
    chosen = {f"{name}.{own}" for name in batch_norms for own in owns} | {
        "backbone.classifier.weight",
        "backbone.classifier.bias",
    }
    assert learning(model) == chosen
    before = snapshot(model)
    train(model)
    statistics = {
        f"{name}.{own}"
        for name in batch_norms
        for own in ("running_mean", "running_var", "num_batches_tracked")
    }
    moved = changed(before, snapshot(model))
    assert moved <= chosen | statistics
    assert statistics <= moved


@pytest.mark.parametrize(
    ("name", "arguments", "kinds"),
    [
        (
            "convnextv2_atto",
            {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
            {"LayerNorm2d", "GlobalResponseNorm"},
        ),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2, "norm_layer": "rmsnorm"},
            {"RmsNorm"},
        ),
        (
            "resnetv2_50",
            {
                "layers": (1, 1, 1, 1),
                "channels": (32, 32, 32, 32),
                "stem_chs": 32,
                "norm_layer": "evonorms0",
            },
            {"EvoNorm2dS0"},
        ),
        (
            "resnetv2_50",
            {
                "layers": (1, 1, 1, 1),
                "channels": (32, 32, 32, 32),
                "stem_chs": 32,
                "norm_layer": "frn",
            },
            {"FilterResponseNormAct2d"},
        ),
    ],
)
def test_norm_knows_the_norms_that_timm_wrote_itself(
    name: str, arguments: dict[str, object], kinds: set[str]
) -> None:
    model = detector(name, size=32, **arguments)
    norm(model)
    head = set(model.head().parameters())
    chosen = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter not in head
    }
    called = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if type(module).__name__ in kinds
    }
    assert set(called.values()) == kinds
    own = {
        name
        for name, _ in model.named_parameters()
        if name.rpartition(".")[0] in called and name.endswith((".weight", ".bias"))
    }
    assert chosen == own


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("beit_base_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}),
        (
            "vit_small_patch16_dinov3_qkvb",
            {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2},
        ),
    ],
)
def test_bitfit_finds_biases_apart_and_leaves_position_tables_alone(
    name: str, arguments: dict[str, object]
) -> None:
    model = detector(name, size=32, **arguments)
    bitfit(model)
    chosen = learning(model)
    assert {
        "backbone.blocks.0.attn.q_bias",
        "backbone.blocks.0.attn.v_bias",
        "backbone.blocks.0.mlp.fc1.bias",
    } <= chosen
    assert all(name.endswith("bias") for name in chosen - {"backbone.head.weight"})


class Bare(nn.Module):
    """A backbone with neither norms nor biases."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4, bias=False), nn.Linear(4, 1)

    def get_classifier(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (norm, r"Bare has no normalisation layer.*method=lora"),
        (bitfit, r"No layer of Bare.*method=lora"),
    ],
)
def test_a_backbone_without_anything_to_train_is_refused(
    method: Callable[[Detector], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        method(Detector(Bare(), (0.5,) * 3, (0.5,) * 3))


@pytest.fixture(scope="module")
def peft() -> ModuleType:
    """The reference; fmsd is imported before it, for the sake of torchvision."""
    import peft

    return peft


@both
@pytest.mark.parametrize("backbone", ["vit", "cnn"])
def test_outputs_gradients_and_merged_weights_are_those_of_the_peft_package(
    peft: ModuleType, backbone: str, dora: bool
) -> None:
    if backbone == "vit":
        ours, patterns, targets = (
            tiny_vit(),
            ("attention", "mlp"),
            ["qkv", "attn.proj", "fc1", "fc2"],
        )
    else:
        ours, patterns, targets = (
            detector("regnetx_002", size=32),
            ("pointwise",),
            r".*\.(conv1|conv3|downsample)\.conv",
        )
    ours = ours.double().eval()
    stir(ours)  # RegNet starts with norms of weight zero
    config = peft.LoraConfig(
        target_modules=targets, r=3, lora_alpha=6, use_dora=dora, init_lora_weights=False
    )
    theirs = peft.get_peft_model(copy.deepcopy(ours.backbone), config).eval()
    adapt(ours, *patterns, rank=3, alpha=6, dora=dora)
    own = layers(ours.backbone)
    pairs = {
        name: (layer, theirs.base_model.model.get_submodule(name)) for name, layer in own.items()
    }
    assert (
        sum(isinstance(module, peft.tuners.lora.LoraLayer) for module in theirs.modules())
        == len(pairs)
        > 2
    )
    stir(ours)
    with torch.no_grad():
        for mine, reference in pairs.values():
            reference.lora_A["default"].weight.copy_(
                mine.a.view_as(reference.lora_A["default"].weight)
            )
            reference.lora_B["default"].weight.copy_(
                mine.b.view_as(reference.lora_B["default"].weight)
            )
            if mine.magnitude is not None:
                magnitude = reference.lora_magnitude_vector["default"].weight
                magnitude.copy_(mine.magnitude.view_as(magnitude))
        for one, other in zip(
            ours.head().parameters(),
            theirs.base_model.model.get_classifier().parameters(),
            strict=True,
        ):
            other.copy_(one)
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weighting = torch.tensor([1.0, -2.0], dtype=torch.float64)
    outputs = ours.backbone(image).squeeze(-1), theirs(image).squeeze(-1)
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    for output in outputs:
        (functional.softplus(output) * weighting).sum().backward()
    for mine, reference in pairs.values():
        weights = [
            (mine.a, reference.lora_A["default"].weight),
            (mine.b, reference.lora_B["default"].weight),
        ]
        if mine.magnitude is not None:
            weights.append((mine.magnitude, reference.lora_magnitude_vector["default"].weight))
        for one, other in weights:
            assert one.grad is not None
            assert one.grad.abs().sum() > 0
            torch.testing.assert_close(one.grad, other.grad.view_as(one), rtol=1e-7, atol=1e-9)
    merged = theirs.merge_and_unload().state_dict()
    folded = fold_layers(ours.backbone).state_dict()
    assert list(folded) == list(merged)
    for key, value in folded.items():
        torch.testing.assert_close(value, merged[key], rtol=1e-9, atol=1e-9)
