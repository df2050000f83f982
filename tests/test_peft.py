"""Laws of adapted detectors: exact at the start, factored = effective = folded, frozen means bit-equal."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fmsd.models.detector import Detector, detector
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import fold, inject, linears, slices
from fmsd.peft.penalties import PENALTIES
from fmsd.peft.probe import probe
from fmsd.peft.subspace import SubspaceLinear
from fmsd.types import InputError
from tests.conftest import tiny_vit

ATTENTION = ("*attn.qkv", "*attn.proj")
IMAGE = torch.rand(3, 3, 32, 32)


def stir(model: nn.Module) -> None:
    """Moves every trainable parameter away from its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def layers(model: nn.Module) -> list[SubspaceLinear]:
    return [module for module in model.modules() if isinstance(module, SubspaceLinear)]


@pytest.mark.parametrize("subspaces", [1, 4])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("allotment", ["interleave", "contiguous"])
def test_injected_detector_starts_as_the_pretrained_one(tiny: Detector, subspaces: int, directions: int, allotment: str) -> None:
    before = tiny(IMAGE)
    fmsd(tiny, ATTENTION, subspaces, directions, allotment)
    torch.testing.assert_close(tiny(IMAGE), before, rtol=1e-5, atol=1e-5)


def test_fold_after_inject_is_the_identity_on_keys_and_outputs(tiny: Detector) -> None:
    keys, original = list(tiny.state_dict()), {key: value.clone() for key, value in tiny.state_dict().items()}
    fmsd(tiny, ATTENTION, 2, 1)
    fold(tiny.backbone)
    assert list(tiny.state_dict()) == keys
    for key, value in tiny.state_dict().items():
        torch.testing.assert_close(value, original[key], rtol=0, atol=1e-6)


def test_factored_forward_effective_weight_and_fold_agree(tiny: Detector) -> None:
    fmsd(tiny, ATTENTION, 2, 2)
    stir(tiny)
    for layer in layers(tiny):
        x = torch.randn(2, 5, layer.in_features)
        expected = functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.fold()(x), expected, rtol=1e-5, atol=1e-5)
    adapted = tiny(IMAGE)
    torch.testing.assert_close(fold(tiny)(IMAGE), adapted, rtol=1e-4, atol=1e-5)


def test_fused_matrices_are_decomposed_slice_by_slice(tiny: Detector) -> None:
    weight = tiny.backbone.blocks[0].attn.qkv.weight.detach().clone()  # pyright: ignore
    fmsd(tiny, ATTENTION, 2, 1)
    layer = tiny.backbone.get_submodule("blocks.0.attn.qkv")
    for part, values in zip(weight.chunk(3), layer.s0, strict=True):  # pyright: ignore
        torch.testing.assert_close(values.sort().values, torch.linalg.svdvals(part)[-2:].sort().values, rtol=1e-3, atol=1e-5)
    assert [slices(name) for name in ("blocks.0.attn.qkv", "attn.kv", "attn.proj", "fc_qkv_norm")] == [3, 2, 1, 1]


def test_interleave_and_contiguous_allot_the_same_directions_differently() -> None:
    linear = nn.Linear(16, 16)
    woven, blocked = (SubspaceLinear(linear, 1, 2, 3, allotment) for allotment in ("interleave", "contiguous"))
    torch.testing.assert_close(woven.s0[0], blocked.s0[0][[0, 2, 4, 1, 3, 5]])


def test_only_factors_and_head_learn_and_the_rest_stays_bit_equal(tiny: Detector) -> None:
    fmsd(tiny, ATTENTION, 2, 1, penalties={"orthogonality": 1.0})
    names = {name for name, parameter in tiny.named_parameters() if parameter.requires_grad}
    factors = {f"backbone.blocks.{block}.attn.{layer}.{factor}" for block in (0, 1) for layer in ("qkv", "proj") for factor in "usv"}
    assert names == factors | {"backbone.head.weight", "backbone.head.bias"}
    frozen = {key: value.clone() for key, value in tiny.state_dict().items() if key not in names}
    optimizer = torch.optim.AdamW([parameter for parameter in tiny.parameters() if parameter.requires_grad], lr=0.01)
    for _ in range(3):
        tiny(IMAGE).sum().backward()
        optimizer.step()
    for key, value in frozen.items():
        assert torch.equal(value, tiny.state_dict()[key]), key


def test_effort_trains_the_published_number_of_parameters_per_block() -> None:
    """96 matrices of 1024 x 1024 and 196,704 numbers on CLIP ViT-L/14 are 4 matrices and 8,196 numbers in each of its 24 blocks."""
    model = tiny_vit(embed_dim=1024, depth=1, num_heads=16)
    fmsd(model, ATTENTION, 1, 1)
    head = sum(parameter.numel() for parameter in model.head().parameters())
    assert sum(layer.parts for layer in layers(model)) * 24 == 96
    assert (sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) - head) * 24 == 196_704


@pytest.mark.parametrize(
    ("name", "arguments", "patterns"),
    [
        ("beit_base_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}, ATTENTION),
        ("eva02_tiny_patch14_224", {"img_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2}, ("*attn.*proj",)),
        ("vit_small_patch16_dinov3_qkvb", {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}, ATTENTION),
        ("swinv2_tiny_window8_256", {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}, ATTENTION),
        ("sam2_hiera_tiny", {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "global_att_blocks": ()}, ATTENTION),
    ],
)
def test_gradients_reach_every_factor_whether_the_backbone_calls_the_layer_or_reads_its_weight(
    name: str, arguments: dict[str, object], patterns: tuple[str, ...]
) -> None:
    model = detector(name, size=64, **arguments)
    size = arguments.get("img_size", 64)
    image = torch.rand(2, 3, size, size)  # pyright: ignore
    stir(model)  # some families start with norms of weight zero
    before = model(image)
    fmsd(model, patterns, 1, 1)
    torch.testing.assert_close(model(image), before, rtol=1e-4, atol=1e-4)
    stir(model)
    (model(image) * torch.tensor([1.0, -2.0])).sum().backward()
    assert layers(model)
    for layer in layers(model):
        for factor in (layer.u, layer.s, layer.v):
            assert factor.grad is not None
            assert factor.grad.abs().sum() > 0


def test_full_and_probe(tiny: Detector) -> None:
    probe(tiny)
    assert {name for name, parameter in tiny.named_parameters() if parameter.requires_grad} == {"backbone.head.weight", "backbone.head.bias"}
    full(tiny)
    assert all(parameter.requires_grad for parameter in tiny.parameters())


def test_a_pattern_that_matches_nothing_is_refused_with_the_layers_there_are(tiny: Detector) -> None:
    with pytest.raises(InputError, match=r"match no linear layer of VisionTransformer.*blocks\.0\.attn\.qkv.*method\.patterns"):
        fmsd(tiny, ("*attention*",), 1, 1)


def test_a_pattern_that_matches_everything_spares_the_head(tiny: Detector) -> None:
    fmsd(tiny, ("*",), 1, 1)
    assert isinstance(tiny.head(), nn.Linear)
    assert len(layers(tiny)) == len(linears(tiny_vit())) - 1


def test_too_many_directions_and_unknown_penalties_are_refused(tiny: Detector) -> None:
    with pytest.raises(InputError, match=r"cannot give 24 directions"):
        fmsd(tiny, ATTENTION, 24, 1)
    with pytest.raises(InputError, match=r"orthogonal=1.0 is no penalty.*orthogonality, spectral"):
        fmsd(tiny, ATTENTION, 1, 1, penalties={"orthogonal": 1.0})
    assert fmsd(tiny, ATTENTION, 1, 1, penalties={"orthogonality": 0.0}) == {}


def dense(layer: SubspaceLinear, part: int) -> tuple[torch.Tensor, ...]:
    """Semantic bases, factors and matrices of one slice, from full decompositions."""
    rank = layer.s.shape[1]
    head = layer.semantic.chunk(layer.parts)[part]
    u, _, vt = torch.linalg.svd(head, full_matrices=False)
    kept = min(head.shape) - rank
    return u[:, :kept], vt[:kept].mT, layer.u[part], layer.v[part].mT, head, layer.s[part]


@pytest.mark.parametrize("shape", [(20, 20), (36, 20), (20, 36)])
@pytest.mark.parametrize("parts", [1, 2])
def test_cheap_penalties_equal_their_definitions(shape: tuple[int, int], parts: int) -> None:
    layer = SubspaceLinear(nn.Linear(shape[1], shape[0] * parts).double(), parts, 2, 2)
    model = nn.Sequential(layer)
    pretrained = [(layer.semantic.chunk(parts)[part] + (layer.u0[part] * layer.s0[part]) @ layer.v0[part]).square().sum() for part in range(parts)]
    assert PENALTIES["orthogonality"](model) < 1e-20
    assert PENALTIES["spectral"](model) < 1e-14
    stir(model)
    orthogonality, spectral = [], []
    for part in range(parts):
        u_sem, v_sem, u, v, head, s = dense(layer, part)
        both = [torch.cat(pair, dim=1) for pair in ((u_sem, u), (v_sem, v))]
        orthogonality.append(sum((both_.mT @ both_ - torch.eye(both_.shape[1])).square().sum() for both_ in both))
        spectral.append(((head + (u * s) @ v.mT).square().sum() - pretrained[part]).abs() / pretrained[part])
    torch.testing.assert_close(PENALTIES["orthogonality"](model), torch.stack(orthogonality).mean(), rtol=1e-10, atol=0)
    torch.testing.assert_close(PENALTIES["spectral"](model), torch.stack(spectral).mean(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", list(PENALTIES))
def test_every_penalty_pulls_on_the_factors(tiny: Detector, name: str) -> None:
    ((weight, penalty),) = fmsd(tiny, ATTENTION, 2, 1, penalties={name: 0.5}).values()
    assert weight == 0.5
    stir(tiny)
    penalty(tiny).backward()
    for layer in layers(tiny):
        assert layer.u.grad is not None
        assert layer.u.grad.abs().sum() > 0
        assert layer.v.grad is not None
        assert layer.v.grad.abs().sum() > 0
        assert name != "spectral" or layer.s.grad is not None


def test_inject_names_layers_and_keeps_their_order(tiny: Detector) -> None:
    seen: list[str] = []
    inject(tiny.backbone, ["*.mlp.fc1"], lambda name, linear: seen.append(name) or linear)
    assert seen == ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]
