"""Laws of SVF: U diag(s + ds) V^T, exact at the start, determined by the matrix alone."""

from pathlib import Path

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fmsd.errors import InputError
from fmsd.linalg import Factors, decompose
from fmsd.models.detector import Detector
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.svf import SvfLinear, svf
from tests.conftest import tiny_vit
from tests.test_baselines import (
    HEAD,
    IMAGE,
    PLAIN,
    apply,
    changed,
    check_compiled_and_mixed,
    inputs,
    snapshot,
    stir,
    train,
)

every_kind = pytest.mark.parametrize("kind", list(PLAIN))


def stirred(kind: str, parts: int = 1) -> tuple[nn.Module, SvfLinear]:
    plain = PLAIN[kind]()
    layer = SvfLinear(plain, parts)  # pyright: ignore[reportArgumentType]
    stir(layer)
    return plain, layer


def test_it_starts_as_the_pretrained_detector_bit_for_bit(tiny: Detector) -> None:
    before = tiny(IMAGE)
    svf(tiny, patterns=["attention", "mlp"])
    assert torch.equal(tiny(IMAGE), before)


@every_kind
@pytest.mark.parametrize("parts", [1, 3])
def test_the_effective_weight_has_the_changed_singular_values(kind: str, parts: int) -> None:
    plain, layer = stirred(kind, parts)
    for own, effective, ds in zip(
        plain.weight.detach().flatten(1).chunk(parts),  # pyright: ignore
        layer.weight.flatten(1).chunk(parts),
        layer.ds,
        strict=True,
    ):
        u, s, vt = torch.linalg.svd(own, full_matrices=False)
        torch.testing.assert_close(effective, u @ torch.diag(s + ds) @ vt, rtol=1e-4, atol=1e-5)


@every_kind
def test_forward_effective_weight_and_fold_agree(kind: str) -> None:
    plain, layer = stirred(kind)
    x, folded = inputs(kind), layer.fold()
    assert layer.weight.shape == plain.weight.shape
    expected = apply(plain, x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)
    assert type(folded) is type(plain)


@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_it_compiles_into_one_graph_and_trains_in_mixed_precision(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check of shapes while tests run does not compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    _, layer = stirred(kind)
    check_compiled_and_mixed(layer, layer.ds, inputs(kind))


def test_directions_that_the_matrix_does_not_determine_have_no_part_in_it() -> None:
    """Another machine would find other directions for them, and so other weights."""
    plain = nn.Linear(6, 6)
    with torch.no_grad():
        plain.weight[3:] = 0
    layer = SvfLinear(plain, 1)
    with torch.no_grad():
        layer.ds.fill_(0.5)
    u, s, vt = torch.linalg.svd(plain.weight.detach())
    expected = u[:, :3] @ torch.diag(s[:3] + 0.5) @ vt[:3]
    torch.testing.assert_close(layer.weight, expected, rtol=1e-4, atol=1e-5)
    layer(torch.randn(4, 6)).square().sum().backward()
    assert layer.ds.grad is not None
    assert (layer.ds.grad[0, :3] != 0).all()
    assert not layer.ds.grad[0, 3:].any()
    nothing = nn.Linear(6, 6)
    nn.init.zeros_(nothing.weight)
    assert not SvfLinear(nothing, 1).u.any()


def test_the_signs_of_the_directions_do_not_matter() -> None:
    plain = nn.Linear(8, 5)
    found = decompose(plain.weight)
    signs = torch.tensor([1.0, -1, -1, 1, -1])
    turned = Factors(found.u * signs, found.s, found.vt * signs[:, None])
    weights = []
    for factors in (found, turned):
        layer = SvfLinear(plain, 1, Factors(*(part[None] for part in factors)))
        with torch.no_grad():
            layer.ds.copy_(torch.arange(5.0))
        weights.append(layer.weight)
    assert torch.equal(*weights)


def test_only_singular_values_and_the_head_are_trained_and_the_rest_stays_bit_equal(
    tiny: Detector,
) -> None:
    svf(tiny, patterns=["attention"])
    own = {
        f"backbone.blocks.{block}.attn.{layer}.ds" for block in (0, 1) for layer in ("qkv", "proj")
    }
    before = snapshot(tiny)
    train(tiny)
    assert changed(before, snapshot(tiny)) == own | HEAD
    decayed, _ = decay_groups(tiny, 0.1)
    assert len(decayed["params"]) == 1  # pyright: ignore[reportArgumentType]


def test_a_block_of_clip_vit_l14_has_4096_singular_values_in_its_attention() -> None:
    """24 blocks of four matrices of 1024 x 1024: 98,304 numbers."""
    with torch.device("meta"):
        numbers = [
            SvfLinear(
                nn.Linear(1024, parts * 1024),
                parts,
                Factors(
                    torch.empty(parts, 1024, 1024),
                    torch.empty(parts, 1024),
                    torch.empty(parts, 1024, 1024),
                ),
            ).ds.numel()
            for parts in (3, 1)
        ]
    assert 24 * sum(numbers) == 98_304


def test_its_adapter_holds_singular_values_alone(tmp_path: Path) -> None:
    model = tiny_vit()
    base = adapter.fingerprint(model)
    svf(model, patterns=["attention"])
    stir(model)
    adapter.save(model, tmp_path, {"name": "vit", "hash": base}, {})
    kept = load_file(tmp_path / "adapter.safetensors")
    assert {name for name in kept if "attn" in name} == {
        f"blocks.{block}.attn.{layer}.ds" for block in (0, 1) for layer in ("qkv", "proj")
    }
    assert kept["blocks.0.attn.qkv.ds"].shape[0] == 3


@pytest.mark.parametrize("parts", [2, 4, 10**13])
def test_a_file_with_another_number_of_matrices_is_refused(parts: int) -> None:
    plain, layer = stirred("linear")
    with pytest.raises(ValueError, match="another number of singular values"):
        SvfLinear.rebuild(plain, {"parts": parts}, dict(layer.state_dict()))  # pyright: ignore


def test_a_stack_that_does_not_divide_is_refused(tiny: Detector) -> None:
    tiny.backbone.blocks[0].attn.qkv = nn.Linear(24, 70)  # pyright: ignore
    with pytest.raises(
        InputError,
        match=r"'blocks\.0\.attn\.qkv' \(70 x 24\) does not divide into 3 matrices; add '!blocks",
    ):
        svf(tiny, patterns=["attention"])
    assert not any(isinstance(module, SvfLinear) for module in tiny.modules())
