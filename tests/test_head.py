"""The cosine head: neither the length of the feature nor that of the direction matters, in every
family, method and file.
"""

import copy
import functools
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.linalg import unit_vectors
from fmsd.merge.average import Average
from fmsd.merge.task_vectors import Specialists, TensorPart
from fmsd.merge.task_vectors import merge_tensors as merged
from fmsd.models.attribution import gradcam
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.models.features import features_and_logits
from fmsd.models.head import SCALE, CosineHead
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.fmsd import fmsd
from fmsd.peft.inject import fold_layers
from fmsd.peft.mask import Masking
from fmsd.peft.parts import network_parts
from fmsd.peft.probe import probe
from tests.conftest import grow_tree, step, tiny_vit
from tests.test_adapter import METHODS, adamw, train
from tests.test_families import BY_NAME, FAMILIES, LABEL, Family, check_gradients, stir
from tests.test_mask import Noise

IMAGE = torch.rand(4, 3, 32, 32)


def cosine_vit(**changes: object) -> Detector:
    torch.manual_seed(7)
    return tiny_vit(normalise_head=True, **changes)


# ---- the law


def test_the_logit_is_a_multiple_of_the_cosine() -> None:
    head, feature = CosineHead(12), torch.randn(5, 12)
    stir(head)
    expected = head.log_scale.exp() * torch.cosine_similarity(feature, head.weight, dim=1)
    torch.testing.assert_close(head(feature), expected[:, None])


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1e6])
def test_no_length_matters(factor: float) -> None:
    head, feature = CosineHead(12), torch.randn(5, 12)
    before = head(feature)
    torch.testing.assert_close(head(feature * factor), before)
    with torch.no_grad():
        head.weight *= factor
    torch.testing.assert_close(head(feature), before)
    torch.testing.assert_close(head(-feature), -before)


def test_a_gradient_turns_a_vector_and_leaves_its_length() -> None:
    head, feature = CosineHead(12), torch.randn(5, 12, requires_grad=True)
    head(feature).square().sum().backward()
    assert head.weight.grad is not None
    assert feature.grad is not None
    for vectors, gradient in ((head.weight, head.weight.grad), (feature, feature.grad)):
        assert (gradient.norm(dim=1) > 1e-3).all()
        assert (
            (vectors * gradient).sum(1).abs() < 1e-5 * gradient.norm(dim=1) * vectors.norm(dim=1)
        ).all()


def test_it_starts_with_a_direction_and_the_scale_of_gac_fas_that_follow_from_the_seed() -> None:
    one, other = (cosine_vit().head() for _ in range(2))
    assert torch.equal(one.get_parameter("weight"), other.get_parameter("weight"))
    assert one.get_parameter("weight").count_nonzero() == 24
    assert one.get_parameter("log_scale").exp().item() == pytest.approx(SCALE)
    torch.manual_seed(8)
    assert not torch.equal(
        tiny_vit(normalise_head=True).head().get_parameter("weight"), one.get_parameter("weight")
    )


def test_nothing_else_of_the_network_differs_from_that_with_a_plain_head() -> None:
    torch.manual_seed(7)
    plain = tiny_vit().backbone.state_dict()
    own = cosine_vit().backbone.state_dict()
    assert own.keys() - plain.keys() == {"head.log_scale"}
    assert plain.keys() - own.keys() == {"head.bias"}
    assert all(
        torch.equal(own[name], plain[name]) for name in own.keys() & plain.keys() - {"head.weight"}
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_around_it_rounds_no_cosine(kind: torch.dtype) -> None:
    head = CosineHead(12)
    # the squares of the numbers leave the range of float16
    for length in (
        1.0,
        4e4 if kind == torch.float16 else 1e15,
    ):
        feature = (functional.normalize(torch.randn(5, 12)) * length).to(kind).requires_grad_()
        with torch.autocast("cpu", kind):
            logit = head(feature)
        assert logit.dtype == torch.float32
        torch.testing.assert_close(logit, head(feature.detach().float()))
        (gradient,) = torch.autograd.grad(logit.sum(), feature)
        assert gradient.isfinite().all()


def test_a_feature_of_zeros_has_logit_zero_and_finite_gradients() -> None:
    head, feature = CosineHead(12), torch.zeros(2, 12, requires_grad=True)
    logit = head(feature)
    assert not logit.any()
    gradients = torch.autograd.grad(logit.sum(), [feature, *head.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weight_decay_leaves_the_head_alone() -> None:
    model = cosine_vit()
    spared = {
        parameter
        for group in decay_groups(model, 0.1)
        if not group["weight_decay"]
        for parameter in group["params"]
    }  # pyright: ignore
    assert {*model.head().parameters()} <= spared
    probe(model)
    (group,) = decay_groups(model, 0.1)
    assert group["weight_decay"] == 0


# ---- every family


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_learns_through_it_and_without_it_is_timms(
    family: Family, tmp_path: Path
) -> None:
    make = functools.partial(
        detector, family.name, family.size, normalise_head=True, **family.arguments
    )
    model, image = make().eval(), torch.rand(len(LABEL), 3, family.size, family.size)
    base = copy.deepcopy(model.backbone.state_dict())
    logit = model(image)
    assert logit.shape == (len(LABEL),)
    assert logit.isfinite().all()
    assert (logit.abs() <= SCALE * (1 + 1e-5)).all()
    fmsd(model, patterns=family.patterns, subspaces=2, directions=1)
    functional.binary_cross_entropy_with_logits(model.train()(image), LABEL).backward()
    check_gradients(model, dict(model.head().named_parameters()))
    stir(model.head())

    fresh = make()
    fresh.backbone.load_state_dict(base)
    adapter.save(model, tmp_path, {"name": family.name, "hash": adapter.fingerprint(fresh)}, {})
    adapter.load(fresh, tmp_path)
    with torch.no_grad():
        expected = model.eval()(image)
        assert torch.equal(fresh.eval()(image), expected)

    empty = meta_detector(make)
    assert {name: tensor.shape for name, tensor in empty.backbone.state_dict().items()} == {
        name: tensor.shape for name, tensor in base.items()
    }
    head = adapter.head_name(empty)
    assert {
        name: part.kind
        for name, part in network_parts(empty).items()
        if part.kind in ("head", "direction")
    } == {
        f"{head}.weight": "direction",
        f"{head}.log_scale": "head",
    }

    # As docs/concepts/head.md shows it: the network without its classifier gives the feature.
    state = dict(fold_layers(fresh).backbone.state_dict())  # pyright: ignore
    weight, log_scale = state.pop(f"{head}.weight"), state.pop(f"{head}.log_scale")
    body = timm.create_model(family.name, num_classes=0, **family.arguments).eval()
    body.load_state_dict(state)
    with torch.no_grad():
        cosine = torch.cosine_similarity(body((image - model.mean) / model.std), weight, dim=1)
    torch.testing.assert_close(log_scale.exp() * cosine, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnetv2_50x1_bit", "ends in a Conv2d instead of one linear layer"),
        ("deit_tiny_distilled_patch16_224", "ends in 2 classifiers instead of one linear layer"),
        ("caformer_s18", "ends in a MlpHead instead of one linear layer"),
    ],
)
def test_another_classifier_is_refused(name: str, kind: str) -> None:
    with (
        pytest.raises(
            InputError,
            match=rf"{kind}, so head\.normalise=true cannot replace it; set head\.normalise=false",
        ),
        torch.device("meta"),
    ):
        detector(name, 224, normalise_head=True)


def test_a_head_before_the_pooling_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=(
            r"features of the shape \(2, 9, 12\), and head\.normalise=true or feature needs "
            r"one vector an image"
        ),
    ):
        CosineHead(12)(torch.randn(2, 9, 12))


# ---- every method


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_brings_the_head_back_bit_for_bit_and_folds(name: str, tmp_path: Path) -> None:
    model = cosine_vit()
    base, start = adapter.fingerprint(model), copy.deepcopy(model.head().state_dict())
    assert base == adapter.fingerprint(Detector(cosine_vit().backbone, (0.5,) * 3, (0.5,) * 3))
    train(model, METHODS[name](model), adamw(model), 3)
    assert all(
        not torch.equal(tensor, start[key]) for key, tensor in model.head().state_dict().items()
    )
    adapter.save(model, tmp_path, {"name": "vit", "hash": base}, {})
    loaded = cosine_vit()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded(IMAGE), model(IMAGE))
    torch.testing.assert_close(fold_layers(loaded)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)
    assert list(loaded.state_dict()) == list(cosine_vit().state_dict())
    torch.manual_seed(7)
    with pytest.raises(InputError, match=r"do not fit the detector \(first: 'head\."):
        adapter.load(tiny_vit(), tmp_path)


def test_the_head_has_no_part_in_the_fingerprint() -> None:
    torch.manual_seed(7)
    assert adapter.fingerprint(tiny_vit()) == adapter.fingerprint(cosine_vit())


def test_the_warm_up_of_a_layer_mask_moves_the_head_and_puts_it_back() -> None:
    model, seen = cosine_vit(), []
    start = copy.deepcopy(model.head().state_dict())
    model.head().register_forward_hook(
        lambda head, *_: seen.append(copy.deepcopy(head.state_dict()))
    )
    masked = fmsd(
        model,
        Noise(),
        patterns=["attention"],
        subspaces=2,
        directions=1,
        mask=Masking(batches=3, warmup_steps=4, warmup_lr=1e-2),
    ).mask  # pyright: ignore
    assert masked is not None
    assert all(not torch.equal(seen[-1][key], start[key]) for key in start)
    assert all(torch.equal(tensor, start[key]) for key, tensor in model.head().state_dict().items())


# ---- what is looked at


@torch.no_grad()
def test_features_are_the_directions_that_the_head_turns_into_the_logit() -> None:
    model = cosine_vit().eval()
    found, logit = features_and_logits(model, IMAGE)
    head = model.head()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(
        head.get_parameter("log_scale").exp()
        * (found @ unit_vectors(head.get_parameter("weight")).T).squeeze(1),
        logit,
    )


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "vit_base_patch16_224"])
def test_gradcam_finds_something_everywhere(name: str) -> None:
    family = BY_NAME[name]
    model = detector(
        name,
        64,
        normalise_head=True,
        **family.arguments | ({"img_size": 64} if "img_size" in family.arguments else {}),
    ).eval()
    heat = gradcam(model, torch.rand(3, 3, 64, 64))
    assert heat.isfinite().all()
    assert heat.flatten(1).amax(1).gt(0).all()


# ---- weights of one's own


def test_a_head_of_the_other_kind_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = cosine_vit()
    stir(one.head())
    save_file(one.backbone.state_dict(), tmp_path / "cosine.safetensors")
    assert torch.equal(cosine_vit(weights=tmp_path / "cosine.safetensors")(IMAGE), one(IMAGE))
    save_file(tiny_vit().backbone.state_dict(), tmp_path / "plain.safetensors")
    tiny_vit(weights=tmp_path / "plain.safetensors")
    assert not caplog.text
    for name, cosine in (("cosine", False), ("plain", True)):
        caplog.clear()
        weights = load_file(tmp_path / f"{name}.safetensors")
        loaded = tiny_vit(
            normalise_head=cosine, weights=tmp_path / f"{name}.safetensors"
        ).backbone.state_dict()
        assert all(
            torch.equal(loaded[key], weights[key]) == (not key.startswith("head"))
            for key in loaded.keys() & weights.keys()
        )
        assert f"{name}.safetensors: its head of one output is of another kind" in caplog.text


# ---- merging


def heads(*states: dict[str, Tensor]) -> dict[str, Tensor]:
    kinds = {"head.weight": TensorPart("direction"), "head.log_scale": TensorPart("head")}
    specialists = Specialists({}, states, kinds)
    return {name: tensor for name, tensor, _ in merged(specialists, Average())}


def test_directions_and_logarithms_of_scales_are_averaged() -> None:
    one = {"head.weight": torch.tensor([[3.0, 0.0]]), "head.log_scale": torch.tensor(math.log(4))}
    other = {
        "head.weight": torch.tensor([[0.0, 0.01]]),
        "head.log_scale": torch.tensor(math.log(9)),
    }
    found = heads(one, other)
    torch.testing.assert_close(found["head.weight"], torch.full((1, 2), 0.5**0.5))
    assert found["head.log_scale"].exp().item() == pytest.approx(6)
    torch.testing.assert_close(heads(one, one)["head.weight"], torch.tensor([[1.0, 0.0]]))
    with pytest.raises(
        InputError,
        match=(
            r"point opposite ways, so 'head\.weight' has no mean direction; leave one of them "
            r"out"
        ),
    ):
        heads(one, one | {"head.weight": -2 * one["head.weight"]})


# ---- the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three specialists, two of them with a cosine head."""
    folder = tmp_path_factory.mktemp("heads")
    grow_tree(folder / "data", domains=("real", "swap"))
    for name, words in {"a": [], "b": ["method=lora"], "plain": ["head.normalise=false"]}.items():
        data = [
            "data=folder",
            f"data.root={folder / 'data'}",
            "trainer=smoke",
            "backbone=demo_vit",
            "head.normalise=true",
        ]
        assert (
            main(
                [
                    "train",
                    "method=probe",
                    "optimizer.lr=1e-2",
                    *data,
                    *words,
                    f"hydra.run.dir={folder / 'runs' / name}",
                ]
            )
            == 0
        )
    return folder


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err


def logits(file: Path) -> list[float]:
    return pl.read_parquet(file)["logit"].to_list()


def test_a_run_rebuilds_its_head_for_every_verb(there: Path) -> None:
    assert (
        yaml.safe_load((there / "runs" / "a" / "config.yaml").read_text())["backbone"][
            "normalise_head"
        ]
        is True
    )
    assert {"head.weight", "head.log_scale"} == set(
        load_file(there / "runs" / "a" / "adapter.safetensors")
    )
    assert json.loads((there / "runs" / "a" / "run.json").read_text())["trainable"] == 161
    assert main(["evaluate", "run=runs/a", "hydra.run.dir=again"]) == 0
    assert logits(there / "again" / "predictions" / "folder.parquet") == logits(
        there / "runs" / "a" / "predictions" / "folder.parquet"
    )
    pytest.importorskip("sklearn")
    assert main(["explain", "run=runs/a", "images=1", "frames=4", "out=pictures"]) == 0


def test_fold_writes_what_fmsd_loads_again(there: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["fold", "run=runs/b", "out=b.safetensors"]) == 0
    assert "Its head normalises the feature, which no head of timm does" in caplog.text
    words = [
        "data=folder",
        "data.root=data",
        "trainer=smoke",
        "backbone=demo_vit",
        "method=probe",
        "optimizer.lr=1e-30",
    ]
    assert (
        main(
            [
                "train",
                *words,
                "head.normalise=true",
                "backbone.weights=b.safetensors",
                "hydra.run.dir=from_b",
            ]
        )
        == 0
    )
    one, again = (
        torch.tensor(logits(there / run / "predictions" / "folder.parquet"))
        for run in ("runs/b", "from_b")
    )
    torch.testing.assert_close(again, one, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_experts_with_cosine_heads_merge_and_mixed_ones_are_refused(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "merger=average", "experts=[runs/a,runs/b]", "out=ab", "test=false"]) == 0
    one, other, mean = (
        load_file(there / run / "adapter.safetensors") for run in ("runs/a", "runs/b", "ab")
    )
    expected = functional.normalize(
        unit_vectors(one["head.weight"]) + unit_vectors(other["head.weight"])
    )
    torch.testing.assert_close(mean["head.weight"], expected)
    torch.testing.assert_close(
        mean["head.log_scale"], (one["head.log_scale"] + other["head.log_scale"]) / 2
    )
    assert main(["evaluate", "run=ab", "hydra.run.dir=ab/again"]) == 0

    mixed = "and the network of the merge in one of"
    said = refused(capsys, "merge", "experts=[runs/a,runs/plain]", "out=x")
    assert f"runs/plain ends in a head of head.normalise=false, {mixed} head.normalise=true" in said
    said = refused(capsys, "merge", "experts=[runs/plain,runs/a]", "out=x")
    assert f"runs/a ends in a head of head.normalise=true, {mixed} head.normalise=false" in said
    assert not (there / "x").exists()
    for run in ("a", "plain"):
        assert main(["fold", f"run=runs/{run}", f"out={run}.safetensors"]) == 0
    said = refused(
        capsys, "merge", "experts=[a.safetensors,plain.safetensors]", "backbone=demo_vit", "out=x"
    )
    assert (
        f"a.safetensors ends in a head of head.normalise=true, {mixed} head.normalise=false" in said
    )
    assert "(with backbone=NAME give backbone.normalise_head=true)" in said
    said = refused(
        capsys,
        "merge",
        "experts=[a.safetensors,plain.safetensors]",
        "backbone=demo_vit",
        "backbone.normalise_head=true",
        "out=x",
    )
    assert (
        f"plain.safetensors ends in a head of head.normalise=false, {mixed} head.normalise=true"
        in said
    )
    assert main(["fold", "run=runs/b", "out=other.safetensors"]) == 0
    files = "experts=[a.safetensors,other.safetensors]"
    assert (
        main(
            [
                "merge",
                "merger=average",
                files,
                "backbone=demo_vit",
                "backbone.normalise_head=true",
                "out=files",
                "test=false",
            ]
        )
        == 0
    )
    torch.testing.assert_close(
        load_file(there / "files" / "adapter.safetensors")["head.weight"], expected
    )


def test_a_head_that_would_not_come_is_refused(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "data=folder", "data.root=data", "trainer=smoke", "hydra.run.dir=x"]
    said = refused(capsys, *words, "backbone=demo_vit", "backbone.normalise_head=true")
    assert (
        "head.normalise=false does not reach the backbone, which has normalise_head=true; "
        "leave backbone.normalise_head out" in said
    )
    assert "head.normalise=yes is none of false, true and feature" in refused(
        capsys, *words, "backbone=demo_vit", "head.normalise=yes"
    )
    cnn = [
        "backbone=efficientnet_lite0",
        "backbone.pretrained=false",
        "backbone.name=resnetv2_50x1_bit",
        "backbone.size=32",
    ]
    said = refused(capsys, *words, *cnn, "method=probe", "head.normalise=true")
    assert (
        "ResNetV2 ends in a Conv2d instead of one linear layer, so head.normalise=true cannot "
        "replace it; set head.normalise=false" in said
    )
    assert not (there / "x").exists()


# ---- it learns


@pytest.mark.slow
@pytest.mark.parametrize(("method", "width"), [("probe", 192), ("fmsd", 192), ("full", 24)])
def test_it_separates_what_a_plain_head_separates(method: str, width: int) -> None:
    """Fakes have one brighter corner; 60 steps of the same batches."""
    scores = {}
    for cosine in (False, True):
        torch.manual_seed(7)
        model = tiny_vit(normalise_head=cosine, embed_dim=width)
        adaptation: Any = METHODS[method](model)
        optimizer = torch.optim.AdamW(decay_groups(model, 0.01), lr=3e-3)
        generator = torch.Generator().manual_seed(1)

        def batch(generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
            label = torch.arange(32) % 2
            image = torch.rand(32, 3, 32, 32, generator=generator)
            image[:, :, :16, :16] += 0.25 * label.view(-1, 1, 1, 1)
            return image, label.float()

        for _ in range(60):
            step(model, adaptation, optimizer, *batch())
        image, label = batch()
        logit = model.eval()(image)
        scores[cosine] = (logit[label == 1][:, None] > logit[label == 0]).float().mean().item()
    assert scores[True] > max(0.9, scores[False] - 0.03)
