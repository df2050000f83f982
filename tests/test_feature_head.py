"""The head of GenD and LNCLIP: a linear layer on the feature divided by its norm."""

import copy
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.nn import functional

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits
from fmsd.models.formats import to_timm_keys
from fmsd.models.head import FeatureHead, HeadKind, check_head_kind, head_kind
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.inject import fold_layers, select_layers
from fmsd.peft.parts import network_parts
from tests.conftest import grow_tree, tiny_vit
from tests.test_adapter import METHODS, adamw, train
from tests.test_families import stir

IMAGE = torch.rand(4, 3, 32, 32)
KINDS: tuple[HeadKind, ...] = (False, True, "feature")


def vit(kind: HeadKind = "feature", **changes: object) -> Detector:
    torch.manual_seed(7)
    return tiny_vit(normalise_head=kind, **changes)


# ---- the law


def test_the_logit_is_the_difference_of_the_papers_two_outputs() -> None:
    feature, weight, bias = torch.randn(5, 12), torch.randn(2, 12), torch.randn(2)
    head = FeatureHead(12)
    with torch.no_grad():
        head.linear.weight.copy_(weight[1:] - weight[:1])
        head.linear.bias.copy_(bias[1:] - bias[:1])
    real, fake = ((feature / feature.norm(dim=1, keepdim=True)) @ weight.T + bias).T
    torch.testing.assert_close(head(feature).squeeze(1), fake - real)
    torch.testing.assert_close(head(feature * 1e4), head(feature))
    torch.testing.assert_close(head(torch.zeros(1, 12)), head.linear.bias[None])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_norm(kind: torch.dtype) -> None:
    head, feature = FeatureHead(12), (4e4 * torch.randn(5, 12).clamp(-1, 1)).to(kind)
    with torch.autocast("cpu", kind):
        logit = head(feature)
    assert logit.dtype == torch.float32
    torch.testing.assert_close(logit, head(feature.float()))
    assert head.to(kind)(feature).dtype == torch.float32


def test_several_vectors_an_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 9, 12\), and head\.normalise=true or feat"):
        FeatureHead(12)(torch.randn(2, 9, 12))


def test_only_the_head_differs_from_the_plain_network() -> None:
    plain, own = vit(False).backbone.state_dict(), vit().backbone.state_dict()
    assert own.keys() - plain.keys() == {"head.linear.weight", "head.linear.bias"}
    assert all(torch.equal(own[name], plain[name]) for name in own.keys() & plain.keys())
    assert adapter.fingerprint(vit()) == adapter.fingerprint(vit(False))


def test_its_weight_decays_as_a_plain_one_does_and_no_method_adapts_it() -> None:
    model = vit()
    decayed = [
        parameter
        for group in decay_groups(model, 0.1)
        if group["weight_decay"]
        for parameter in group["params"]  # pyright: ignore[reportGeneralTypeIssues]
    ]
    assert any(parameter is model.head().linear.weight for parameter in decayed)  # pyright: ignore[reportAttributeAccessIssue]
    assert not any("linear" in name for name in select_layers(model, ["*"]))


# ---- its kind is recognised


@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_the_names_tell_the_kind(prefix: str) -> None:
    for kind in KINDS:
        names = [f"{prefix}{name}" for name in vit(kind).backbone.state_dict()]
        assert head_kind(names, "head") == kind
        for other in KINDS:
            network = vit(other).backbone
            if kind == other:
                check_head_kind(names, network, "head", "a file")
            else:
                with pytest.raises(InputError, match=r"a file ends in a head of head\.normalise="):
                    check_head_kind(names, network, "head", "a file")


@pytest.mark.parametrize("other", [False, True])
def test_a_head_of_another_kind_is_left_out_with_a_warning(
    other: HeadKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: tuple[HeadKind, ...] = ("feature", other)
    for kind in kinds:
        model = vit(kind)
        stir(model.head())
        save_file(model.backbone.state_dict(), tmp_path / f"{kind}.safetensors")
        assert torch.equal(vit(kind, weights=tmp_path / f"{kind}.safetensors")(IMAGE), model(IMAGE))
    assert not caplog.text
    for kind, file in zip(kinds, reversed(kinds), strict=True):
        caplog.clear()
        loaded = vit(kind, weights=tmp_path / f"{file}.safetensors").head().state_dict()
        assert all(
            torch.equal(loaded[key], value) for key, value in vit(kind).head().state_dict().items()
        )
        assert f"{file}.safetensors: its head of one output is of another kind" in caplog.text


def test_timm_refuses_the_file_and_the_lines_of_the_documentation_load_it() -> None:
    model = vit().eval()
    state = dict(model.backbone.state_dict())
    arguments: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    }
    with pytest.raises(RuntimeError, match=r"head\.linear\.weight"):
        timm.create_model("vit_tiny_patch16_224", num_classes=1, **arguments).load_state_dict(state)
    weight, bias = state.pop("head.linear.weight"), state.pop("head.linear.bias")
    body = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments).eval()
    body.load_state_dict(state)
    feature = functional.normalize(body((IMAGE - model.mean) / model.std))
    torch.testing.assert_close(functional.linear(feature, weight, bias).squeeze(1), model(IMAGE))


def test_two_outputs_in_a_merge_become_one() -> None:
    model = vit()
    state = dict(model.backbone.state_dict())
    weight, bias = torch.randn(2, 24), torch.randn(2)
    found = to_timm_keys(
        state | {"head.linear.weight": weight, "head.linear.bias": bias}, model.backbone, "a file"
    )
    torch.testing.assert_close(found["head.linear.weight"], weight[1:] - weight[:1])
    torch.testing.assert_close(found["head.linear.bias"], bias[1:] - bias[:1])


# ---- every method, features, merges


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_brings_it_back_bit_for_bit_and_folds(name: str, tmp_path: Path) -> None:
    model = vit()
    base, start = adapter.fingerprint(model), copy.deepcopy(model.head().state_dict())
    train(model, METHODS[name](model), adamw(model), 2)
    assert all(
        not torch.equal(value, start[key]) for key, value in model.head().state_dict().items()
    )
    adapter.save(model, tmp_path, {"name": "vit", "hash": base}, {})
    loaded = vit()
    adapter.load(loaded, tmp_path)
    assert torch.equal(loaded(IMAGE), model(IMAGE))
    torch.testing.assert_close(fold_layers(loaded)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)
    for other in (False, True):
        with pytest.raises(InputError, match=r"do not fit the detector \(first: 'head\."):
            adapter.load(vit(other), tmp_path)


@torch.no_grad()
def test_its_features_are_unit_vectors_that_its_layer_turns_into_the_logit() -> None:
    model = vit().eval()
    found, logit = features_and_logits(model, IMAGE)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    layer = model.head().linear
    torch.testing.assert_close(functional.linear(found, layer.weight, layer.bias)[:, 0], logit)  # pyright: ignore


def test_a_merge_averages_it_as_it_does_a_plain_head() -> None:
    for name, part in network_parts(vit()).items():
        assert (part.kind == "head") == name.startswith("head.linear.")


# ---- the command line


@pytest.mark.slow
def test_runs_fold_merge_and_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grow_tree(tmp_path / "data", domains=("real", "swap"))
    words = ["data=folder", "data.root=data", "trainer=smoke", "backbone=demo_vit", "method=probe"]
    for seed in (0, 1):
        run = [f"seed={seed}", "optimizer.lr=1e-2", f"hydra.run.dir=runs/{seed}"]
        assert main(["train", *words, "head.normalise=feature", *run]) == 0
        assert main(["fold", f"run=runs/{seed}", f"out={seed}.safetensors"]) == 0
    config = yaml.safe_load(Path("runs/0/config.yaml").read_text())
    assert config["backbone"]["normalise_head"] == "feature"
    assert json.loads(Path("runs/0/run.json").read_text())["trainable"] == 161

    again = ["head.normalise=feature", "backbone.weights=0.safetensors", "optimizer.lr=1e-30"]
    assert main(["train", *words, *again, "hydra.run.dir=again"]) == 0
    one, other = (
        torch.tensor(pl.read_parquet(f"{run}/predictions/folder.parquet")["logit"].to_list())
        for run in ("runs/0", "again")
    )
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)

    both, kind = ["backbone=demo_vit", "test=false"], "backbone.normalise_head=feature"
    assert main(["merge", "merger=average", "experts=[runs/0,runs/1]", "out=ab", "test=false"]) == 0
    files = "experts=[0.safetensors,1.safetensors]"
    assert main(["merge", "merger=average", files, *both, kind, "out=files"]) == 0
    capsys.readouterr()
    assert main(["merge", "merger=average", files, *both, "out=x"]) == 2
    assert "give backbone.normalise_head=feature" in capsys.readouterr().err
    experts = [load_file(f"runs/{seed}/adapter.safetensors") for seed in (0, 1)]
    for name in ("head.linear.weight", "head.linear.bias"):
        mean = (experts[0][name] + experts[1][name]) / 2
        for merge in ("ab", "files"):
            found = load_file(f"{merge}/adapter.safetensors")[name]
            torch.testing.assert_close(found, mean)


def test_a_record_with_the_older_name_of_the_key_builds_the_same_head() -> None:
    torch.manual_seed(7)
    assert head_kind(tiny_vit(cosine_head=True).backbone.state_dict(), "head") is True
