"""Laws of adapted detectors over the families of backbones: each tiny, with random weights.

Families differ in how they use their matrices: called or read (BEiT, EVA, Swin v2), fused or apart,
linear or convolution, strided or not.
"""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.fmsd import fmsd
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import LoraLinear, lora
from fmsd.peft.lora_xs import LoraXsLinear, lora_xs
from fmsd.peft.masm import masm
from fmsd.peft.method import Adaptation
from fmsd.peft.subspace import SubspaceLinear
from fmsd.peft.svf import SvfLinear, svf

LABEL = torch.tensor([0.0, 1.0, 1.0])


class Family(NamedTuple):
    """A timm model made tiny, and the layers of it to adapt: `layers` says which there are, by the
    last parts of their names.
    """

    name: str
    patterns: tuple[str, ...]
    layers: set[str]
    arguments: dict[str, Any]
    size: int = 32


BOTH = ("attention", "mlp")
FUSED = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
APART = {
    "attn.q_proj",
    "attn.k_proj",
    "attn.v_proj",
    "attn.proj",
    "mlp.fc1_g",
    "mlp.fc1_x",
    "mlp.fc2",
}
POOL = FUSED | {"attn_pool.q", "attn_pool.kv", "attn_pool.proj"}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SWIN = {
    "img_size": 32,
    "window_size": 4,
    "embed_dim": 24,
    "depths": (1, 2),
    "num_heads": (2, 2),
    "drop_path_rate": 0.0,
}
HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}
RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
FAMILIES = [
    Family("vit_base_patch16_224", BOTH, FUSED, VIT),
    Family("vit_base_patch16_clip_224", BOTH, FUSED, VIT),
    Family("vit_small_patch14_dinov2", BOTH, FUSED, VIT),
    Family("vit_small_patch14_reg4_dinov2", BOTH, FUSED, VIT),
    Family("vit_giant_patch14_dinov2", BOTH, FUSED, VIT),  # SwiGLU, packed
    Family("vit_small_patch16_dinov3", BOTH, FUSED, VIT),
    Family("vit_small_patch16_dinov3_qkvb", BOTH, FUSED, VIT),
    Family("eva02_tiny_patch14_224", BOTH, FUSED, VIT),  # SwiGLU, packed
    Family("eva02_base_patch14_224", BOTH, APART, VIT),
    Family("beit_base_patch16_224", BOTH, FUSED, VIT),
    Family("beitv2_base_patch16_224", BOTH, FUSED, VIT),
    Family("deit3_small_patch16_224", BOTH, FUSED, VIT),
    Family("vit_base_patch16_siglip_224", (*BOTH, "attn_pool.*"), POOL, VIT),
    Family("vit_pe_core_tiny_patch16_384", (*BOTH, "attn_pool.*"), POOL, VIT),
    Family("swin_tiny_patch4_window7_224", BOTH, FUSED, SWIN),
    Family("swinv2_tiny_window8_256", BOTH, FUSED, SWIN),
    Family("swinv2_cr_tiny_224", (*BOTH, "!*.meta_mlp.*"), FUSED, SWIN),
    Family("hiera_tiny_224", BOTH, FUSED, HIERA | {"img_size": (64, 64)}, 64),
    Family("sam2_hiera_tiny", BOTH, FUSED, HIERA | {"global_att_blocks": ()}, 64),
    Family("convnext_tiny", ("mlp",), {"mlp.fc1", "mlp.fc2"}, CONVNEXT),
    Family(
        "convnext_atto", ("mlp",), {"mlp.fc1", "mlp.fc2"}, CONVNEXT
    ),  # the same layers as convolutions
    Family("convnextv2_tiny", ("mlp",), {"mlp.fc1", "mlp.fc2"}, CONVNEXT),
    Family(
        "efficientnet_b0",
        ("blocks.[0-2].*",),
        {"conv_pw", "conv_pwl", "se.conv_reduce", "se.conv_expand"},
        {},
    ),
    Family("tf_efficientnet_lite0", ("blocks.[0-2].*",), {"conv_pw", "conv_pwl"}, {}),
    Family(
        "test_efficientnet",
        ("pointwise",),
        {"conv_pw", "conv_pwl", "se.conv_reduce", "se.conv_expand", "conv_head"},
        {},
    ),
    Family("legacy_xception", ("block1.*", "block2.*"), {"skip", "pointwise"}, {}),
    Family("resnet50", ("pointwise",), {"conv1", "conv3", "downsample.0"}, RESNET),
    Family("resnet50d", ("pointwise",), {"conv1", "conv3", "downsample.1"}, RESNET),
]
BY_NAME = {family.name: family for family in FAMILIES}
READ_AND_CALLED = [
    BY_NAME[name]
    for name in (
        "beit_base_patch16_224",
        "swinv2_tiny_window8_256",
        "vit_small_patch16_dinov3_qkvb",
        "efficientnet_b0",
    )
]

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
some_families = pytest.mark.parametrize("family", READ_AND_CALLED, ids=lambda family: family.name)


def build(family: Family) -> Detector:
    return detector(family.name, family.size, **family.arguments).eval()


def pretrained(family: Family) -> tuple[Detector, dict[str, Tensor], Tensor]:
    """A detector, a copy of its weights, and images.

    Norms of weight zero and layer scales of 1e-6 are moved away from there, and batch norms know
    the size of what comes in.
    """
    model, image = build(family), torch.rand(len(LABEL), 3, family.size, family.size)
    stir(model)
    hooks = [
        module.register_forward_pre_hook(measure)
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return model, copy.deepcopy(model.backbone.state_dict()), image


@torch.no_grad()
def measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Keeps numbers below one through a deep network, where rounding errors do not grow from layer
    to layer.
    """
    norm.running_mean.fill_(inputs[0].mean())  # pyright: ignore
    norm.running_var.fill_(9 * inputs[0].var())  # pyright: ignore


def stir(model: nn.Module) -> None:
    """Moves every trainable parameter away from its start, a matrix by as much as keeps the size of
    what it gives.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(
                    torch.randn_like(parameter)
                    * (parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
                )


def learning(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def step(
    model: Detector, adaptation: Adaptation, optimizer: torch.optim.Optimizer, image: Tensor
) -> None:
    """One training step; the gradients are left for a look."""
    optimizer.zero_grad()
    functional.binary_cross_entropy_with_logits(model.train()(image), LABEL).backward()
    if adaptation.rule:
        adaptation.rule.observe()
    for weight, penalty in adaptation.penalties.values():
        (weight * penalty(model)).backward()
    if adaptation.rule:
        adaptation.rule.before_step()
    optimizer.step()


def factors(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter for name, parameter in model.named_parameters() if ".artifacts." in name
    }


def check_close(actual: Tensor, expected: Tensor) -> None:
    assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()


def check_gradients(model: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    assert parameters
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or parameter.grad is None, name


def check_folded(model: Detector, family: Family, image: Tensor) -> None:
    """The folded detector is one of timm's, and equal in outputs."""
    with torch.no_grad():
        expected = model.eval()(image)
        folded = cast(Detector, fold_layers(copy.deepcopy(model)))
        check_close(folded(image), expected)
    plain = timm.create_model(family.name, num_classes=1, **family.arguments)
    shapes = {key: value.shape for key, value in folded.backbone.state_dict().items()}
    assert list(shapes) == list(plain.state_dict())
    assert shapes == {key: value.shape for key, value in plain.state_dict().items()}
    assert [name for name, _ in folded.backbone.named_modules()] == [
        name for name, _ in plain.named_modules()
    ]


def check_round_trip(
    model: Detector, base: dict[str, Tensor], family: Family, image: Tensor, folder: Path
) -> None:
    """What `load` makes of fresh base weights is the adapted detector, bit for bit, and the same
    parameters learn.
    """
    fresh = build(family)
    fresh.backbone.load_state_dict(base)
    adapter.save(model, folder, {"name": family.name, "hash": adapter.fingerprint(fresh)}, {})
    adapter.load(fresh, folder)
    assert learning(fresh) == learning(model)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(image), model.eval()(image))
    assert list(fresh.state_dict()) == list(model.state_dict())
    for (key, value), other in zip(
        model.state_dict().items(), fresh.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), key


# ---- what holds of every family


@pytest.mark.slow
@every_family
def test_an_adapted_backbone_starts_equal_learns_folds_and_comes_back_from_its_adapter(
    family: Family, tmp_path: Path
) -> None:
    model, base, image = pretrained(family)
    with torch.no_grad():
        before = model(image)
    adaptation = fmsd(
        model,
        patterns=family.patterns,
        subspaces=2,
        directions=1,
        penalties={"orthogonality": 1.0, "spectral": 1.0},
    )
    layers = {
        name: layer
        for name, layer in model.backbone.named_modules()
        if isinstance(layer, SubspaceLinear)
    }
    assert all(
        layer.parts == {"qkv": 3, "kv": 2}.get(name.rpartition(".")[2], 1)
        for name, layer in layers.items()
    )
    assert all(
        any(name.endswith(f".{last}") or name == last for name in layers) for last in family.layers
    )
    assert all(
        any(name.endswith(f".{last}") or name == last for last in family.layers) for name in layers
    )
    with torch.no_grad():
        check_close(model.eval()(image), before)

    # Of the loss alone first: a penalty reaches factors that the forward pass does not.
    functional.binary_cross_entropy_with_logits(model.train()(image), LABEL).backward()
    check_gradients(model, factors(model))
    for name, layer in layers.items():
        for part in range(layer.parts):
            assert all(
                factor.grad[part].abs().sum() > 0
                for factor in (layer.units[0].u, layer.units[0].s, layer.units[0].v)
            ), (name, part)  # pyright: ignore
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=3e-3)
    for _ in range(2):
        step(model, adaptation, optimizer, image)
        check_gradients(model, factors(model))

    with torch.no_grad():
        assert not torch.allclose(model.eval()(image), before, rtol=1e-3, atol=1e-3)
    for name, value in model.backbone.state_dict().items():
        if name in base and f"backbone.{name}" not in learning(model):
            assert torch.equal(value, base[name]), name
    check_round_trip(model, base, family, image, tmp_path)
    check_folded(model, family, image)


@pytest.mark.parametrize("constraint", ["soft", "hard"])
@some_families
def test_masm_takes_a_step_in_which_inactive_subspaces_do_not_move(
    family: Family, constraint: str, tmp_path: Path
) -> None:
    model, base, image = pretrained(family)
    method = functools.partial(
        masm, every=1, momentum=0.9, fraction=0.5, penalties={"orthogonality": 1.0, "spectral": 1.0}
    )
    adaptation = method(
        model, patterns=family.patterns[:1], subspaces=2, directions=1, constraint=constraint
    )  # pyright: ignore
    assert adaptation.history is not None
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=3e-3)
    step(
        model, adaptation, optimizer, image
    )  # one step has no variance, so that no mask is made of it
    before = {name: parameter.detach().clone() for name, parameter in factors(model).items()}
    step(model, adaptation, optimizer, image)
    (active,) = adaptation.history.active
    assert 0 < sum(active) < len(active)
    moved = {
        name
        for name, parameter in factors(model).items()
        if not torch.equal(parameter, before[name])
    }
    for unit, learns in zip(adaptation.history.units, active, strict=True):
        own = {f"backbone.{unit}.{factor}" for factor in ("usv" if constraint == "soft" else "c")}
        assert own <= moved if learns else own.isdisjoint(moved)
    check_round_trip(model, base, family, image, tmp_path)
    check_folded(model, family, image)


UPDATES: dict[str, Callable[..., Adaptation]] = {
    "lora": functools.partial(lora, rank=2, alpha=4),
    "dora": functools.partial(lora, rank=2, alpha=4, dora=True),
    "pissa": functools.partial(lora, rank=2, alpha=4, init="pissa"),
    "milora": functools.partial(lora, rank=2, alpha=4, init="milora", dora=True),
    "lora_xs": functools.partial(lora_xs, rank=2, alpha=2, sigma=0),
    "svf": svf,
}


def check_updates(method: str, family: Family, folder: Path) -> None:
    """The detector starts equal, every parameter of the update is trained, and the adapted detector
    folds and comes back from its adapter.
    """
    model, base, image = pretrained(family)
    with torch.no_grad():
        before = model(image)
    adaptation = UPDATES[method](model, patterns=family.patterns)
    with torch.no_grad():
        check_close(model.eval()(image), before)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=3e-3)
    for _ in range(2):  # in the first step b is zero, so a has no gradient
        step(model, adaptation, optimizer, image)
    updates = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear | LoraXsLinear | SvfLinear)
    ]
    check_gradients(
        model,
        {
            f"{name}.{key}": value
            for name, module in updates
            for key, value in module.named_parameters()
            if value.requires_grad
        },
    )
    check_round_trip(model, base, family, image, folder)
    check_folded(model, family, image)


@pytest.mark.parametrize("method", UPDATES)
@some_families
def test_updates_are_trained_and_come_back_from_their_adapter(
    family: Family, method: str, tmp_path: Path
) -> None:
    check_updates(method, family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pissa", "lora_xs", "svf"])
@every_family
def test_updates_by_singular_directions_work_on_every_family(
    family: Family, method: str, tmp_path: Path
) -> None:
    check_updates(method, family, tmp_path)


# ---- what cannot work is refused in one sentence


def refusal(adapt: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        adapt()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet50", "convnext_tiny"])
def test_attention_on_a_cnn_is_refused_with_the_layers_there_are(name: str) -> None:
    model = build(BY_NAME[name])
    there = {
        "efficientnet_b0": "blocks.0.0.se.conv_reduce",
        "resnet50": "layer1.0.conv1",
        "convnext_tiny": "stages.0.blocks.0.mlp.fc1",
    }[name]
    for adapt in (
        functools.partial(fmsd, subspaces=2, directions=1),
        functools.partial(lora, rank=2, alpha=4),
    ):
        sentence = refusal(lambda adapt=adapt: adapt(model, patterns=("attention",)))
        for part in (
            "'attention'",
            type(model.backbone).__name__,
            there,
            "method.patterns=[",
            "pointwise",
        ):
            assert part in sentence


@pytest.mark.parametrize(
    ("name", "kind"), [("resnetv2_50x1_bit", "StdConv2d"), ("nf_resnet26", "ScaledStdConv2d")]
)
def test_convolutions_that_standardise_their_weight_are_refused(name: str, kind: str) -> None:
    model = detector(name, 32)
    for adapt in (
        functools.partial(fmsd, subspaces=2, directions=1),
        functools.partial(lora, rank=2, alpha=4),
    ):
        sentence = refusal(lambda adapt=adapt: adapt(model, patterns=("pointwise",)))
        for part in (f" {kind},", "more than multiply", "method.patterns"):
            assert part in sentence


@pytest.mark.parametrize(
    "method",
    [fmsd, functools.partial(masm, every=1, momentum=0.9, fraction=0.5)],
    ids=["fmsd", "masm"],
)
def test_more_directions_than_a_squeeze_has_channels_are_refused(
    method: Callable[..., Adaptation],
) -> None:
    model = build(BY_NAME["efficientnet_b0"])
    before = [type(module) for module in model.modules()]
    sentence = refusal(lambda: method(model, patterns=("pointwise",), subspaces=4, directions=1))
    for part in (
        "'blocks.1.0.se.conv_reduce' (4 x 96, 1 matrix)",
        "4 directions",
        "method.subspaces",
        "method.directions",
        "method.patterns",
    ):
        assert part in sentence
    assert [type(module) for module in model.modules()] == before
    method(model, patterns=("blocks.*.conv_pw*", "conv_head"), subspaces=4, directions=1)
