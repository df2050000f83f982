"""Laws of adapted detectors: exact at the start, factored = effective = folded, frozen means
bit-equal.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from fmsd import tensor_cache
from fmsd.errors import InputError
from fmsd.linalg import SMALL, DirectionSplit, Factors, dense_product, singular_directions
from fmsd.models.detector import Detector, detector
from fmsd.package_files import CONF
from fmsd.peft import svd_cache
from fmsd.peft.fmsd import Constraint, fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import fold_layers, matrix_layers, select_layers, stack_size
from fmsd.peft.lora import lora
from fmsd.peft.masm import masm
from fmsd.peft.method import Adaptation
from fmsd.peft.penalties import PENALTIES
from fmsd.peft.probe import probe
from fmsd.peft.subspace import SubspaceLinear, SubspaceSettings
from fmsd.peft.svd_cache import cached_directions
from tests.conftest import step, tiny_vit

ATTENTION = ("attention",)
DEMO: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 160,
    "depth": 6,
    "num_heads": 5,
}
"""The shape of the embedded backbone."""
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
@pytest.mark.parametrize("split", ["tail", "top", "random"])
def test_injected_detector_starts_as_the_pretrained_one(
    tiny: Detector, subspaces: int, directions: int, allotment: str, split: str
) -> None:
    before = tiny(IMAGE)
    fmsd(
        tiny,
        patterns=ATTENTION,
        subspaces=subspaces,
        directions=directions,
        allotment=allotment,
        split=split,
    )
    torch.testing.assert_close(tiny(IMAGE), before, rtol=1e-5, atol=1e-5)


def test_fold_after_inject_is_the_identity_on_keys_and_outputs(tiny: Detector) -> None:
    keys, original = (
        list(tiny.state_dict()),
        {key: value.clone() for key, value in tiny.state_dict().items()},
    )
    fmsd(tiny, patterns=ATTENTION, subspaces=2, directions=1)
    fold_layers(tiny.backbone)
    assert list(tiny.state_dict()) == keys
    for key, value in tiny.state_dict().items():
        torch.testing.assert_close(value, original[key], rtol=0, atol=1e-6)


def test_factored_forward_effective_weight_and_fold_agree(tiny: Detector) -> None:
    fmsd(tiny, patterns=ATTENTION, subspaces=2, directions=2)
    stir(tiny)
    for layer in layers(tiny):
        x = torch.randn(2, 5, layer.in_features)
        expected = functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.fold()(x), expected, rtol=1e-5, atol=1e-5)
    adapted = tiny(IMAGE)
    torch.testing.assert_close(fold_layers(tiny)(IMAGE), adapted, rtol=1e-4, atol=1e-5)


def test_fused_matrices_are_decomposed_slice_by_slice(tiny: Detector) -> None:
    weight = tiny.backbone.blocks[0].attn.qkv.weight.detach().clone()  # pyright: ignore
    fmsd(tiny, patterns=ATTENTION, subspaces=2, directions=1, working_scale=False)
    layer = tiny.backbone.get_submodule("blocks.0.attn.qkv")
    for part, values in zip(weight.chunk(3), layer.initial.s, strict=True):  # pyright: ignore
        torch.testing.assert_close(
            values.sort().values,
            torch.linalg.svdvals(part)[-2:].sort().values,
            rtol=1e-3,
            atol=1e-5,
        )
    assert [
        stack_size(name) for name in ("blocks.0.attn.qkv", "attn.kv", "attn.proj", "fc_qkv_norm")
    ] == [3, 2, 1, 1]


def test_interleave_and_contiguous_allot_the_same_directions_differently() -> None:
    linear = nn.Linear(16, 16)
    woven, blocked = (
        SubspaceLinear(linear, 1, SubspaceSettings(2, 3, allotment, working_scale=False))
        for allotment in ("interleave", "contiguous")
    )
    torch.testing.assert_close(woven.s[0], blocked.s[0][[0, 2, 4, 1, 3, 5]])


@pytest.mark.parametrize("shape", [(20, 20), (36, 20), (60, 20)])
@pytest.mark.parametrize("split", ["tail", "top", "random"])
def test_free_directions_start_at_no_less_than_the_median_singular_value(
    shape: tuple[int, int], split: DirectionSplit
) -> None:
    parts = 3 if shape[0] == 60 else 1
    linear = nn.Linear(shape[1], shape[0])
    random = torch.get_rng_state()
    plain = SubspaceLinear(linear, parts, SubspaceSettings(2, 2, split=split, working_scale=False))
    torch.set_rng_state(random)
    layer = SubspaceLinear(linear, parts, SubspaceSettings(2, 2, split=split))
    medians = torch.stack(
        [torch.linalg.svdvals(matrix).median() for matrix in linear.weight.detach().chunk(parts)]
    )
    torch.testing.assert_close(layer.s, torch.maximum(plain.s, medians[:, None]))
    torch.testing.assert_close(layer.weight, linear.weight, rtol=1e-5, atol=1e-6)


def test_only_factors_and_head_learn_and_the_rest_stays_bit_equal(tiny: Detector) -> None:
    fmsd(tiny, patterns=ATTENTION, subspaces=2, directions=1, penalties={"orthogonality": 1.0})
    names = {name for name, parameter in tiny.named_parameters() if parameter.requires_grad}
    factors = {
        f"backbone.blocks.{block}.attn.{layer}.artifacts.0.{factor}"
        for block in (0, 1)
        for layer in ("qkv", "proj")
        for factor in "usv"
    }
    assert names == factors | {"backbone.head.weight", "backbone.head.bias"}
    frozen = {key: value.clone() for key, value in tiny.state_dict().items() if key not in names}
    optimizer = torch.optim.AdamW(
        [parameter for parameter in tiny.parameters() if parameter.requires_grad], lr=0.01
    )
    for _ in range(3):
        tiny(IMAGE).sum().backward()
        optimizer.step()
    for key, value in frozen.items():
        assert torch.equal(value, tiny.state_dict()[key]), key


def test_effort_trains_the_published_number_of_parameters_per_block() -> None:
    """96 matrices of 1024 x 1024 and 196,704 numbers on CLIP ViT-L/14 are 4 matrices and 8,196
    numbers in each of its 24 blocks.
    """
    model = tiny_vit(embed_dim=1024, depth=1, num_heads=16)
    fmsd(model, patterns=ATTENTION, subspaces=1, directions=1)
    head = sum(parameter.numel() for parameter in model.head().parameters())
    assert sum(layer.parts for layer in layers(model)) * 24 == 96
    assert (
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) - head
    ) * 24 == 196_704


def test_full_and_probe(tiny: Detector) -> None:
    probe(tiny)
    assert {name for name, parameter in tiny.named_parameters() if parameter.requires_grad} == {
        "backbone.head.weight",
        "backbone.head.bias",
    }
    full(tiny)
    assert all(parameter.requires_grad for parameter in tiny.parameters())


def test_a_pattern_that_matches_nothing_is_refused_with_the_layers_there_are(
    tiny: Detector,
) -> None:
    for patterns in (("*attention*",), ("attention", "*.nope")):
        with pytest.raises(
            InputError,
            match=(
                r"pattern '\*.*matches no matrix of "
                r"VisionTransformer.*blocks\.0\.attn\.qkv.*method\.patterns"
            ),
        ):
            fmsd(tiny, patterns=patterns, subspaces=1, directions=1)
    with pytest.raises(InputError, match=r"method\.patterns leaves no layer"):
        fmsd(tiny, patterns=(), subspaces=1, directions=1)


def test_a_pattern_that_matches_everything_spares_the_head(tiny: Detector) -> None:
    everything = len(matrix_layers(tiny.backbone))
    fmsd(tiny, patterns=("*",), subspaces=1, directions=1)
    assert isinstance(tiny.head(), nn.Linear)
    assert len(layers(tiny)) == everything - 1


def test_words_stand_for_kinds_of_layers(tiny: Detector) -> None:
    assert list(select_layers(tiny, ["mlp"])) == [
        f"blocks.{block}.mlp.fc{layer}" for block in (0, 1) for layer in (1, 2)
    ]
    assert list(select_layers(tiny, ["!blocks.0.*", "attention", "!*proj"])) == [
        "blocks.1.attn.qkv"
    ]
    assert list(select_layers(tiny, ["blocks.1.attn.*", "mlp"]))[-4:] == [
        f"blocks.1.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]


def test_too_many_directions_and_unknown_choices_are_refused(
    tiny: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"cannot give 24 directions"):
        fmsd(tiny, patterns=ATTENTION, subspaces=24, directions=1)
    with pytest.raises(InputError, match=r"orthogonal=1.0 is no penalty.*orthogonality, spectral"):
        fmsd(tiny, patterns=ATTENTION, subspaces=1, directions=1, penalties={"orthogonal": 1.0})
    assert (
        fmsd(
            tiny, patterns=ATTENTION, subspaces=1, directions=1, penalties={"orthogonality": 0.0}
        ).penalties
        == {}
    )
    # which would refuse them first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for wrong in ({"split": "middle"}, {"allotment": "woven"}, {"constraint": "strict"}):
        with pytest.raises(InputError, match=rf"method\.{next(iter(wrong))}="):
            fmsd(tiny_vit(), patterns=ATTENTION, subspaces=1, directions=1, **wrong)  # pyright: ignore


def bases(layer: SubspaceLinear, part: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Left and right semantic bases of one slice, from a whole decomposition of the pretrained
    matrix.
    """
    whole = (
        layer.semantic.view(layer.parts, -1, layer.in_features) + dense_product(layer.initial)
    )[part]
    u, _, vt = torch.linalg.svd(whole.double(), full_matrices=False)
    kept = min(whole.shape) - layer.settings.rank
    return u[:, :kept], vt[:kept].mT


@pytest.mark.parametrize("shape", [(20, 20), (36, 20), (20, 36)])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("hard", [False, True])
def test_cheap_penalties_equal_their_definitions(
    shape: tuple[int, int], parts: int, hard: bool
) -> None:
    layer = SubspaceLinear(
        nn.Linear(shape[1], shape[0] * parts).double(), parts, SubspaceSettings(2, 2, hard=hard)
    )
    model = nn.Sequential(layer)
    pretrained = layer.weight.detach().chunk(parts)
    for penalty in PENALTIES.values():
        assert penalty(model) < 1e-14
    stir(model)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in PENALTIES}
    for part, effective in enumerate(layer.weight.chunk(parts)):
        u, v, s = layer.u[part], layer.v[part].mT, layer.s[part]
        both = [torch.cat(pair, dim=1) for pair in zip(bases(layer, part), (u, v), strict=True)]
        found["orthogonality"].append(
            sum((side.mT @ side - torch.eye(side.shape[1])).square().sum() for side in both)
        )  # pyright: ignore
        sides = [side / side.norm(dim=0) for side in (u, v)]
        found["redundancy"].append(
            2 * sum((side[:, :2].mT @ side[:, 2:]).square().sum() for side in sides)
        )  # pyright: ignore
        found["spectral"].append(
            (effective.square().sum() / pretrained[part].square().sum() - 1).square()
        )
        initial = (
            layer.initial.s[part].sort(descending=True).values if hard else layer.initial.s[part]
        )
        found["singular_values"].append((s - initial).square().sum() / initial.square().sum())
    for name, penalty in PENALTIES.items():
        torch.testing.assert_close(
            penalty(model), torch.stack(found[name]).mean(), rtol=1e-7, atol=1e-14
        )
    assert (PENALTIES["orthogonality"](model) < 1e-14) == hard
    assert PENALTIES["spectral"](model) > 1e-6


def test_redundancy_lets_the_directions_of_one_subspace_meet_and_keeps_subspaces_apart() -> None:
    """Four directions are four subspaces, two or one: K and m act apart from their product."""
    linear = nn.Linear(12, 12).double()
    met = {}
    for subspaces in (4, 2, 1):
        layer = SubspaceLinear(linear, 1, SubspaceSettings(subspaces, 4 // subspaces, "contiguous"))
        with torch.no_grad():
            layer.artifacts[0].u[0, :, 1] = 3 * layer.artifacts[0].u[0, :, 0]  # pyright: ignore
        met[subspaces] = PENALTIES["redundancy"](layer).item()
    # the pair and its mirror image, whatever the columns' lengths
    assert met[4] == pytest.approx(2)
    assert met[2] == pytest.approx(0, abs=1e-14)
    assert met[1] == 0


@pytest.mark.parametrize("constraint", ["soft", "hard"])
def test_behind_a_head_of_zeros_the_first_step_moves_no_factor(constraint: Constraint) -> None:
    """No gradient of the loss gets through it, and no penalty may make a full step of Adam out of a
    rounding error.
    """
    model = tiny_vit()
    with torch.no_grad():
        for parameter in model.head().parameters():
            parameter.zero_()
    adaptation = fmsd(
        model,
        patterns=("attention", "mlp"),
        subspaces=2,
        directions=2,
        constraint=constraint,
        penalties=dict.fromkeys(PENALTIES, 1.0),
    )
    before = [
        [factor.detach().clone() for factor in layer.artifacts.parameters()]
        for layer in layers(model)
    ]
    train(model, adaptation, 1, lr=0.01)
    for layer, old in zip(layers(model), before, strict=True):
        for factor, value in zip(layer.artifacts.parameters(), old, strict=True):
            assert torch.equal(factor, value)


def rate(file: str, *keys: str) -> float:
    """A learning rate of the configuration."""
    value = yaml.safe_load((CONF / file).read_text(encoding="utf-8"))
    for key in keys:
        value = value[key]
    return float(value)


@pytest.mark.parametrize("data", ["faces", "ff++"])
def test_the_first_steps_move_the_weights_as_far_as_those_of_lora(data: str) -> None:
    """Five steps of Adam on one batch, on trained weights, at the learning rates of the experiments
    and of the main job.
    """
    moved, image = {}, torch.rand(3, 3, 64, 64)
    for name, method in {
        "fmsd": functools.partial(fmsd, subspaces=4),
        "lora": functools.partial(lora, rank=4, alpha=8.0),
    }.items():
        lr = (
            rate(CONF / "experiments/_training.yaml", "rates", data, name)
            if data == "faces"
            else rate(CONF / f"method/{name}.yaml", "optimizer", "lr")
        )
        model = detector("vit_tiny_patch16_224", 64, weights="package:demo_vit.safetensors", **DEMO)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        train(model, method(model, patterns=ATTENTION), 5, lr, image)
        after = fold_layers(model).state_dict()
        names = [
            key for key in before if key.endswith(("qkv.weight", "proj.weight")) and "attn" in key
        ]
        moved[name] = torch.stack(
            [(after[key] - before[key]).norm() / before[key].norm() for key in names]
        ).mean()
    assert 1 / 3 < moved["fmsd"] / moved["lora"] < 3


def test_penalties_of_matrices_without_energy_are_finite() -> None:
    """Zero matrices, and dead rows, of which CNNs have some."""
    empty, dead = nn.Linear(8, 8), nn.Linear(8, 8)
    with torch.no_grad():
        empty.weight.zero_()
        dead.weight[:3] = 0
    for linear in (empty, dead):
        layer = SubspaceLinear(linear, 1, SubspaceSettings(2, 1))
        stir(layer)
        for penalty in PENALTIES.values():
            value = penalty(layer)
            value.backward()
            assert value.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in layer.artifacts.parameters())  # pyright: ignore


def test_penalties_are_the_mean_over_matrices_of_all_shapes(tiny: Detector) -> None:
    """Layers of one shape are computed in one batch: the mean must not depend on it."""
    fmsd(tiny, patterns=("attention", "mlp"), subspaces=2, directions=1)
    stir(tiny)
    for penalty in PENALTIES.values():
        each = [(penalty(layer), layer.parts) for layer in layers(tiny)]
        expected = sum(value * parts for value, parts in each) / sum(parts for _, parts in each)
        torch.testing.assert_close(penalty(tiny), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "method", [fmsd, functools.partial(masm, every=5, momentum=0.9, fraction=0.5)]
)
@pytest.mark.parametrize("name", list(PENALTIES))
def test_every_penalty_pulls_on_the_factors(
    tiny: Detector, name: str, method: Callable[..., Adaptation]
) -> None:
    adaptation = method(tiny, patterns=ATTENTION, subspaces=2, directions=1, penalties={name: 0.5})
    ((weight, penalty),) = adaptation.penalties.values()
    assert weight == 0.5
    stir(tiny)
    penalty(tiny).backward()
    reached = {
        "redundancy": "uv",
        "orthogonality": "uv",
        "spectral": "usv",
        "singular_values": "s",
    }[name]
    for layer in layers(tiny):
        for unit in layer.units:
            for factor in "usv":
                gradient = getattr(unit, factor).grad
                assert (gradient is not None and gradient.abs().sum() > 0) == (factor in reached)


# ---- the hard constraint


def train(
    model: Detector,
    adaptation: Adaptation,
    steps: int,
    lr: float = 3e-3,
    image: torch.Tensor = IMAGE,
) -> None:
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=lr
    )
    for _ in range(steps):
        step(model, adaptation, optimizer, image, torch.tensor([0.0, 1.0, 1.0]))


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_hard_directions_are_orthonormal_and_outside_the_semantic_part_after_200_steps(
    tiny: Detector, apart: bool
) -> None:
    method = functools.partial(masm, every=7, momentum=0.9, fraction=0.5) if apart else fmsd
    adaptation = method(
        tiny,
        patterns=("attention", "mlp"),
        subspaces=3,
        directions=1,
        constraint="hard",
        penalties={"spectral": 0.1},
    )
    train(tiny, adaptation, 200, lr=0.01)
    for layer in layers(tiny):
        whole = layer.weight.detach().flatten(1).unflatten(0, (layer.parts, -1)).double()
        change = whole - (layer.semantic.view_as(whole) + dense_product(layer.initial))
        for part in range(layer.parts):
            left, right = bases(layer, part)
            u, v = layer.u[part].double(), layer.v[part].double().mT
            assert (left.mT @ u).norm() < 1e-5
            assert (right.mT @ v).norm() < 1e-5
            for columns in (u, v):
                assert (columns.mT @ columns - torch.eye(columns.shape[1])).norm() < 1e-5
            assert change[part].norm() > 0.01
            assert (left.mT @ change[part]).norm() < 1e-5
            assert (change[part] @ right).norm() < 1e-5


def test_hard_layers_learn_a_square_of_coefficients_and_32_directions_by_default() -> None:
    for subspaces, expected in ((4, 32), (1, 32), (3, 33), (40, 40)):
        model = tiny_vit(embed_dim=48, depth=1, num_heads=2)
        fmsd(model, patterns=ATTENTION, subspaces=subspaces, constraint="hard")
        for layer in layers(model):
            assert layer.s.shape == (layer.parts, expected)
            assert (
                sum(parameter.numel() for parameter in layer.artifacts.parameters())
                == layer.parts * expected**2
            )
    soft = tiny_vit()
    fmsd(soft, patterns=ATTENTION, subspaces=4)
    assert {layer.settings.directions for layer in layers(soft)} == {1}


def test_soft_factors_leave_the_tail_which_the_penalty_sees(tiny: Detector) -> None:
    adaptation = fmsd(tiny, patterns=ATTENTION, subspaces=3)
    train(tiny, adaptation, 20, lr=0.01)
    assert PENALTIES["orthogonality"](tiny) > 1e-2


def test_the_hard_constraint_trains_and_leaves_out_the_penalties_that_hold_by_construction(
    tiny: Detector,
) -> None:
    weights = {"orthogonality": 1.0, "redundancy": 1.0}
    adaptation = fmsd(
        tiny,
        patterns=("attention", "mlp"),
        subspaces=4,
        directions=2,
        constraint="hard",
        penalties=weights,
    )
    assert adaptation.penalties == {}
    label = torch.tensor([0.0, 1.0, 1.0])
    tiny.head().requires_grad_(False)
    before = functional.binary_cross_entropy_with_logits(tiny(IMAGE), label)
    train(tiny, adaptation, 30, lr=0.02)
    assert functional.binary_cross_entropy_with_logits(tiny(IMAGE), label) < 0.9 * before


# ---- convolutions, precision, compilation, the cache


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_is_the_matrix_it_is(stride: int) -> None:
    layer = nn.Conv2d(12, 20, 1, stride=stride)
    adapted = SubspaceLinear(layer, 1, SubspaceSettings(2, 2))
    x = torch.randn(2, 12, 5, 5, requires_grad=True)
    torch.testing.assert_close(adapted(x), layer(x), rtol=1e-5, atol=1e-5)
    stir(adapted)
    plain = adapted.fold()
    assert isinstance(plain, nn.Conv2d)
    assert plain.weight.shape == layer.weight.shape == adapted.weight.shape
    torch.testing.assert_close(adapted(x), plain(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        functional.conv2d(x, adapted.weight, adapted.bias, stride), plain(x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_gradients_of_the_factored_product_are_those_of_the_dense_one(
    parts: int, bias: bool, hard: bool
) -> None:
    layer = SubspaceLinear(
        nn.Linear(12, 10 * parts, bias).double(),
        parts,
        SubspaceSettings(2, 2, apart=True, hard=hard),
    )
    stir(layer)
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    wanted = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    pull = torch.randn(2, 5, 10 * parts, dtype=torch.float64)
    factored = torch.autograd.grad((layer(x) * pull).sum(), wanted)
    dense = torch.autograd.grad(
        (functional.linear(x, layer.weight, layer.bias) * pull).sum(), wanted
    )
    for one, other in zip(factored, dense, strict=True):
        torch.testing.assert_close(one, other)


def test_under_bf16_autocast_factors_and_norms_stay_float32(tiny: Detector) -> None:
    fmsd(tiny, patterns=ATTENTION, subspaces=2, directions=1)
    stir(tiny)
    expected = tiny(IMAGE)
    seen: list[torch.dtype] = []
    layer = layers(tiny)[0]
    layer.register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = tiny(IMAGE)
        logits.float().sum().backward()
    assert seen == [torch.bfloat16]
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
    for unit in layers(tiny)[0].units:
        for factor in unit.parameters():
            assert factor.dtype == torch.float32
            assert factor.grad is not None
            assert factor.grad.dtype == torch.float32
    assert {parameter.dtype for parameter in tiny.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_compiled_detector_has_the_same_outputs_and_gradients(
    tiny: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without graph breaks; `aot_eager` traces forward and backward as inductor does, without its
    code generation.
    """
    fmsd(tiny, patterns=("attention", "mlp"), subspaces=2, directions=1)
    stir(tiny)
    learning = [parameter for parameter in tiny.parameters() if parameter.requires_grad]
    plain = torch.autograd.grad(tiny(IMAGE).square().sum(), learning)
    # the check of shapes while tests run does not compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    compiled = torch.compile(tiny, backend="aot_eager", fullgraph=True)
    traced = torch.autograd.grad(compiled(IMAGE).square().sum(), learning)
    for one, other in zip(plain, traced, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_decompositions_are_kept_on_disk_by_the_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path))
    calls: list[tuple[int, ...]] = []
    compute = svd_cache.singular_directions

    def counted(weight: torch.Tensor, rank: int, split: str) -> Factors:
        calls.append(tuple(weight.shape))
        return compute(weight, rank, split)  # pyright: ignore

    monkeypatch.setattr(svd_cache, "singular_directions", counted)
    weight = torch.randn(260, 240)
    first = cached_directions(weight, 3)
    again = cached_directions(weight.clone(), 3)
    assert len(calls) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    cached_directions(weight, 4)
    cached_directions(weight + 1e-3, 3)
    cached_directions(weight, 3, "top")
    assert len(calls) == 4
    (kept, *_) = sorted((tmp_path / "directions").iterdir())
    for path in (tmp_path / "directions").iterdir():
        path.write_bytes(b"half a file")
    assert torch.equal(cached_directions(weight, 3).u, first.u)
    assert len(calls) == 5
    assert not [path for path in (tmp_path / "directions").iterdir() if "partial" in path.name]
    assert kept.suffix == ".safetensors"


def test_small_matrices_and_random_directions_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path))
    cached_directions(torch.randn(64, 64), 3)
    cached_directions(torch.randn(260, 240), 3, "random")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc to fail to write to")
@pytest.mark.parametrize("place", ["/proc/cache", "~nobodyofthisname/cache"])
def test_directions_are_computed_where_no_cache_can_be_written(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that nobody can make, and a home that does not exist: it is said once, not for every
    layer.
    """
    weight = torch.randn(SMALL + 1, SMALL + 2)
    expected = singular_directions(weight, 2)
    tensor_cache._warn.cache_clear()
    monkeypatch.setenv("FMSD_CACHE", place)
    for _ in range(2):
        assert all(
            torch.equal(one, other)
            for one, other in zip(svd_cache.cached_directions(weight, 2), expected, strict=True)
        )
    assert caplog.text.count("set FMSD_CACHE to a folder that can be written") == 1
