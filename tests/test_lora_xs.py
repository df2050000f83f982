"""Laws of LoRA-XS: W + alpha / rank * U R diag(s) V^T with a trained matrix R."""

from pathlib import Path

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft import adapter
from fmsd.peft.lora_xs import LoraXsLinear, lora_xs
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


def stirred(kind: str, parts: int = 1) -> tuple[nn.Module, LoraXsLinear]:
    plain = PLAIN[kind]()
    layer = LoraXsLinear(plain, parts, 1 if parts == 3 else 4, 6, 1e-5)  # pyright: ignore
    stir(layer)
    return plain, layer


def test_it_starts_near_the_pretrained_detector_or_with_sigma_zero_at_it(tiny: Detector) -> None:
    before = tiny(IMAGE)
    lora_xs(tiny, patterns=["attention", "mlp"], rank=8, alpha=8)
    assert not torch.equal(tiny(IMAGE), before)
    torch.testing.assert_close(tiny(IMAGE), before, rtol=1e-3, atol=1e-4)
    exact = tiny_vit()
    before = exact(IMAGE)
    lora_xs(exact, patterns=["attention", "mlp"], rank=8, alpha=8, sigma=0)
    torch.testing.assert_close(exact(IMAGE), before, rtol=1e-6, atol=1e-6)


@every_kind
@pytest.mark.parametrize("parts", [1, 3])
def test_the_effective_weight_is_its_definition(kind: str, parts: int) -> None:
    """With R = I the update is the best approximation of W of its rank, whatever the signs of the
    directions, and a diagonal R scales its directions.
    """
    plain, layer = stirred(kind, parts)
    diagonal = torch.arange(1.0, layer.rank + 1)
    with torch.no_grad():
        layer.r.copy_(torch.diag(diagonal).expand_as(layer.r))
    for own, effective in zip(
        plain.weight.detach().flatten(1).chunk(parts),  # pyright: ignore
        layer.weight.flatten(1).chunk(parts),
        strict=True,
    ):
        u, s, vt = torch.linalg.svd(own, full_matrices=False)
        chosen = slice(layer.rank)
        update = u[:, chosen] @ torch.diag(diagonal * s[chosen]) @ vt[chosen]
        expected = own + 6 / layer.rank * update
        torch.testing.assert_close(effective, expected, rtol=1e-4, atol=1e-5)


def test_the_singular_values_are_on_the_side_of_the_input() -> None:
    plain = nn.Linear(6, 6)
    layer = LoraXsLinear(plain, 1, 2, 2, 0)
    with torch.no_grad():
        layer.r[0] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    s = torch.linalg.svdvals(plain.weight.detach())
    length = torch.linalg.matrix_norm(layer.weight - plain.weight)
    torch.testing.assert_close(length, s[1], rtol=1e-4, atol=1e-6)


@every_kind
@pytest.mark.parametrize("parts", [1, 3])
def test_factored_forward_effective_weight_and_fold_agree(kind: str, parts: int) -> None:
    plain, layer = stirred(kind, parts)
    x, folded = inputs(kind), layer.fold()
    assert layer.weight.shape == plain.weight.shape
    expected = apply(plain, x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)
    assert type(folded) is type(plain)
    called = torch.autograd.grad(layer(x).square().sum(), layer.r)[0]
    read = torch.autograd.grad(apply(plain, x, layer.weight).square().sum(), layer.r)[0]
    torch.testing.assert_close(called, read, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "pointwise"])
@pytest.mark.parametrize("parts", [1, 3])
def test_it_compiles_into_one_graph_and_trains_in_mixed_precision(
    kind: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check of shapes while tests run does not compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    _, layer = stirred(kind, parts)
    check_compiled_and_mixed(layer, layer.r, inputs(kind))


def test_only_the_small_matrices_and_the_head_are_trained(tiny: Detector) -> None:
    lora_xs(tiny, patterns=["attention"], rank=3)
    own = {
        f"backbone.blocks.{block}.attn.{layer}.r" for block in (0, 1) for layer in ("qkv", "proj")
    }
    before = snapshot(tiny)
    train(tiny)
    assert changed(before, snapshot(tiny)) == own | HEAD
    numbers = [parameter.numel() for name, parameter in tiny.named_parameters() if name in own]
    assert sum(numbers) == 2 * 4 * 3**2  # on CLIP ViT-L/14: 24 blocks of four matrices


def test_a_loaded_adapter_decomposes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    model = tiny_vit()
    base = adapter.fingerprint(model)
    lora_xs(model, patterns=["attention"], rank=3)
    stir(model)
    adapter.save(model, tmp_path, {"name": "vit", "hash": base}, {})
    assert {
        name for name in load_file(tmp_path / "adapter.safetensors") if "0.attn.proj" in name
    } == {f"blocks.0.attn.proj.{name}" for name in ("r", "u", "svt")}
    monkeypatch.setattr("fmsd.peft.lora_xs.cached_directions", None)
    torch.manual_seed(7)
    loaded = tiny_vit()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded(IMAGE), model(IMAGE))


@pytest.mark.parametrize("changes", [{"rank": 10**7}, {"parts": 2}, {"parts": 10**13}])
def test_sizes_that_its_tensors_do_not_have_are_never_allocated(changes: dict[str, int]) -> None:
    plain, layer = stirred("linear")
    with pytest.raises(ValueError, match="not those of its tensors"):
        LoraXsLinear.rebuild(
            plain,  # pyright: ignore[reportArgumentType]
            layer.describe() | changes,
            dict(layer.state_dict()),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"method\.rank=0 is out of range; give at least 1"),
        ({"rank": 24}, r"'blocks\.0\.attn\.qkv' .* cannot give 24 directions; lower method\.rank"),
        ({"alpha": 0}, r"method\.alpha=0 .*above 0"),
        ({"sigma": -1.0}, r"method\.sigma=-1\.0 is out of range"),
    ],
)
def test_what_is_out_of_range_is_refused_and_the_detector_is_left_alone(
    tiny: Detector, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        lora_xs(tiny, patterns=["attention"], **({"rank": 3} | changes))  # pyright: ignore
    assert not any(isinstance(module, LoraXsLinear) for module in tiny.modules())
    assert all(parameter.requires_grad for parameter in tiny.parameters())
