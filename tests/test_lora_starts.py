"""Laws of the starts and scalings of LoRA; PiSSA and rsLoRA are held against the peft package."""

import copy
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest
import torch
from torch import nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import Init, LoraLinear, Scaling, lora
from tests.conftest import tiny_vit
from tests.test_baselines import IMAGE, PLAIN, apply, inputs, layers, peft, stir

__all__ = ["peft"]  # the fixture

singular = pytest.mark.parametrize("init", ["pissa", "milora"])
every_kind = pytest.mark.parametrize("kind", list(PLAIN))
scalings = pytest.mark.parametrize("scaling", ["standard", "rslora"])


@singular
@scalings
@every_kind
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_update_starts_as_a_part_of_the_weight(
    init: Init, scaling: Scaling, kind: str, dora: bool
) -> None:
    plain = PLAIN[kind]()
    weight = plain.weight.detach().flatten(1)  # pyright: ignore
    layer = LoraLinear(plain, 2, 6, 0.0, dora, init, scaling)  # pyright: ignore
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    chosen = slice(2) if init == "pissa" else slice(-2, None)
    part = u[:, chosen] @ torch.diag(s[chosen]) @ vt[chosen]
    torch.testing.assert_close(layer.factor * layer.b @ layer.a, part, rtol=1e-4, atol=1e-5)
    # The factors share the singular values evenly.
    torch.testing.assert_close(layer.b.norm(dim=0), layer.a.norm(dim=1))
    assert layer.factor == pytest.approx(6 / (2**0.5 if scaling == "rslora" else 2))
    torch.testing.assert_close(layer.weight.flatten(1), weight, rtol=1e-5, atol=1e-6)
    x = inputs(kind)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    stir(layer)
    expected = apply(plain, x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.fold()(x), expected, rtol=1e-5, atol=1e-5)


def test_random_starts_have_the_spread_of_their_definition(tiny: Detector) -> None:
    before = tiny(IMAGE)
    plain = nn.Linear(1000, 40)
    torch.manual_seed(1)
    normal = LoraLinear(plain, 4, 8, init="gaussian")
    assert normal.a.std().item() == pytest.approx(1 / 4, rel=0.05)
    assert normal.a.abs().max() > 0.6  # more than a uniform distribution of this spread reaches
    torch.manual_seed(1)
    uniform = LoraLinear(plain, 4, 8)
    torch.manual_seed(1)
    expected = nn.Linear(1000, 4, bias=False).weight
    assert torch.equal(uniform.a, expected)
    lora(tiny, patterns=["attention"], rank=2, alpha=4.0, init="gaussian")
    assert torch.equal(tiny(IMAGE), before)


@singular
def test_a_stack_is_one_matrix(init: Init) -> None:
    model = tiny_vit()
    weight = model.backbone.get_parameter("blocks.0.attn.qkv.weight").detach().clone()
    lora(model, patterns=["attention"], rank=2, alpha=2.0, init=init)
    layer = layers(model)["backbone.blocks.0.attn.qkv"]
    assert layer.a.shape == (2, 24)
    s = torch.linalg.svdvals(weight)
    found = torch.linalg.svdvals(layer.b.detach() @ layer.a.detach())[:2]
    torch.testing.assert_close(found, s[:2] if init == "pissa" else s[-2:], rtol=1e-4, atol=1e-6)


@singular
def test_decay_would_pull_factors_of_the_weight_out_of_it(init: Init) -> None:
    model = tiny_vit()
    lora(model, patterns=["attention"], rank=2, alpha=4.0, init=init)
    decayed, spared = decay_groups(model, 0.1)
    assert len(decayed["params"]) == 1  # pyright: ignore # the head
    own = {id(parameter) for layer in layers(model).values() for parameter in (layer.a, layer.b)}
    assert own <= {id(parameter) for parameter in spared["params"]}  # pyright: ignore


@singular
def test_a_loaded_adapter_decomposes_nothing(
    init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    model = tiny_vit()
    base = adapter.fingerprint(model)
    lora(model, patterns=["attention"], rank=2, alpha=4.0, init=init)
    stir(model)
    adapter.save(model, tmp_path, {"name": "vit", "hash": base}, {})
    monkeypatch.setattr("fmsd.peft.lora.cached_directions", None)
    torch.manual_seed(7)
    loaded = tiny_vit()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded(IMAGE), model(IMAGE))
    for name, layer in layers(loaded).items():
        assert torch.equal(layer.weight, layers(model)[name].weight)


def test_a_start_restored_over_another_one_gives_the_same_matrices() -> None:
    """Another machine may find directions with other signs: the frozen part follows them."""
    torch.manual_seed(7)
    one = tiny_vit()
    other = copy.deepcopy(one)
    for model in (one, other):
        lora(model, patterns=["attention"], rank=2, alpha=4.0, init="pissa")
    with torch.no_grad():
        for layer in layers(other).values():
            assert layer.b0 is not None
            before = layer.initial[0].clone(), layer.initial[1].clone()
            layer.b0.mul_(2)
            layer.rebase(before)
    stir(one)
    adapter.load_state_dict(other, adapter.state_dict(one), "a test")
    torch.testing.assert_close(other(IMAGE), one(IMAGE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"init": "olora"},
        {"init": ["pissa"]},
        {"scaling": "none"},
        {"rank": 10**7},
        {"init": "milora", "rank": 3},
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused(changes: dict[str, object]) -> None:
    plain = nn.Linear(10, 6)
    layer = LoraLinear(plain, 2, 4, init="pissa")
    with pytest.raises(ValueError, match=r"unknown|not that of its tensors"):
        LoraLinear.rebuild(plain, layer.describe() | changes, dict(layer.state_dict()))
    tensors = layer.state_dict() | {"b0": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match="b0 and a0 are not of its size"):
        LoraLinear.rebuild(plain, layer.describe(), tensors)


def test_an_adapter_of_before_there_were_starts_is_read() -> None:
    plain = nn.Linear(10, 6)
    layer = LoraLinear(plain, 2, 4)
    stir(layer)
    described = {"rank": 2, "alpha": 4, "dropout": 0.0, "dora": False}
    again = LoraLinear.rebuild(plain, described, dict(layer.state_dict()))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight)


def test_what_cannot_be_is_refused_and_the_detector_is_left_alone(
    tiny: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError,
        match=r"'blocks\.0\.attn\.qkv' \(72 x 24, 1 matrix\) cannot give 24 .*method\.rank",
    ):
        lora(tiny, patterns=["attention"], rank=24, alpha=8, init="pissa")
    # which would refuse them first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for wrong in ({"init": "olora"}, {"scaling": "sqrt"}):
        with pytest.raises(InputError, match=rf"method\.{next(iter(wrong))}="):
            lora(tiny, patterns=["attention"], rank=2, alpha=8, **wrong)  # pyright: ignore
    for init in ("pissa", "milora"):
        with pytest.raises(InputError, match=rf"dropout=0\.1 .*method\.init={init}.*set it to 0"):
            lora(tiny, patterns=["attention"], rank=2, alpha=8, dropout=0.1, init=init)  # pyright: ignore
    assert not layers(tiny)
    assert all(parameter.requires_grad for parameter in tiny.parameters())
    with pytest.raises(
        InputError, match=r"method\.rank=25 is above .* at most 24 \('blocks\.0\.attn.*24 or less"
    ):
        lora(tiny, patterns=["attention"], rank=25, alpha=8)
    with pytest.raises(InputError, match=r"method\.rank=0 is out of range; give at least 1"):
        lora(tiny, patterns=["attention"], rank=0, alpha=8)
    lora(tiny, patterns=["attention"], rank=24, alpha=8)  # a random start may have full rank


def test_a_rank_above_the_channels_of_some_layers_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_vit()
    model.backbone.get_submodule("blocks.0.attn").proj = nn.Linear(24, 4)
    lora(model, patterns=["attention"], rank=5, alpha=8)
    (message,) = caplog.messages
    assert "smaller side of 1 of 4 adapted layers, e.g. of 'blocks.0.attn.proj' (4)" in message


@scalings
def test_pissa_starts_and_merges_as_in_the_peft_package(peft: ModuleType, scaling: str) -> None:
    ours = tiny_vit().eval()
    config = peft.LoraConfig(
        target_modules=["qkv", "attn.proj", "fc1", "fc2"],
        r=3,
        lora_alpha=6,
        init_lora_weights="pissa",
        use_rslora=scaling == "rslora",
    )
    theirs = peft.get_peft_model(copy.deepcopy(ours.backbone), config).eval()
    lora(
        ours,
        patterns=["attention", "mlp"],
        rank=3,
        alpha=6,
        init="pissa",
        scaling=scaling,  # pyright: ignore
    )
    for name, mine in layers(ours.backbone).items():
        reference = theirs.base_model.model.get_submodule(name)
        assert reference.scaling["default"] == pytest.approx(mine.factor)
        a, b = (getattr(reference, f"lora_{letter}")["default"].weight for letter in "AB")
        torch.testing.assert_close(mine.frozen, reference.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.b @ mine.a, b @ a, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            mine.a.add_(0.1)
            mine.b.mul_(1.1)
            a.copy_(mine.a)
            b.copy_(mine.b)
    merged = theirs.merge_and_unload().state_dict()
    for key, value in fold_layers(ours.backbone).state_dict().items():
        torch.testing.assert_close(value, merged[key], rtol=1e-4, atol=1e-5)
