"""Methods whose adapted backbone is no plain one: laws over families, and what every verb does."""

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import fmsd
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.inference.export import PortableDetector, read_pt2, trace, write_onnx, write_pt2
from fmsd.inference.onnx_scorer import OnnxScorer
from fmsd.models.attribution import default_method, gradcam, rollout
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.models.features import features_and_logits
from fmsd.optim.groups import decay_groups
from fmsd.peft import adapter
from fmsd.peft.folded import FoldedWeights
from fmsd.peft.inject import AdaptedLayer, UnfoldableModule, fold_layers
from fmsd.peft.layer_kinds import LAYER_KINDS, check_foldable
from fmsd.peft.method import Adaptation
from fmsd.peft.probe import probe
from fmsd.peft.spectra import sample_matrices
from tests.conftest import UNFOLDABLE, tiny_vit
from tests.detectors import TINY, extract_faces
from tests.films import film, walk
from tests.test_export import metadata
from tests.test_families import (
    FAMILIES,
    LABEL,
    Family,
    check_gradients,
    check_round_trip,
    every_family,
    pretrained,
    refusal,
    step,
    stir,
)

every_method = pytest.mark.parametrize("method", UNFOLDABLE)

CONVOLUTIONAL = {
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "test_efficientnet",
    "legacy_xception",
    "resnet50",
    "resnet50d",
}
CONVNEXT = {"convnext_tiny", "convnext_atto", "convnextv2_tiny"}
BEIT = {"beit_base_patch16_224", "beitv2_base_patch16_224"}
REFUSED = {
    "adapter": CONVOLUTIONAL,
    "vpt": CONVOLUTIONAL
    | CONVNEXT
    | BEIT
    | {
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "swinv2_cr_tiny_224",
        "hiera_tiny_224",
        "sam2_hiera_tiny",
    },
    "moe_lora": CONVOLUTIONAL
    | CONVNEXT
    | BEIT
    | {"swinv2_tiny_window8_256", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3_qkvb"},
}
"""The families that each method refuses, in one sentence; it works with all others."""

NAMES = {family.name: family for family in FAMILIES}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def adapted(method: str, depth: int = 2) -> Detector:
    """A tiny ViT with a method's modules, whose parameters differ from their start."""
    model = tiny_vit(depth=depth)
    UNFOLDABLE[method](model, None)  # pyright: ignore
    stir(model)
    return model.eval()


def save(model: Detector, method: str, folder: Path) -> None:
    base = {"name": "vit_tiny_patch16_224", "hash": adapter.fingerprint(fresh())}
    adapter.save(model, folder, base, {"method": {"name": method}})


def fresh() -> Detector:
    """The same base every time."""
    torch.manual_seed(7)
    return tiny_vit()


# ---- laws over families


@pytest.mark.slow
@every_method
@every_family
def test_a_family_is_trained_and_comes_back_from_its_adapter_or_is_refused(
    family: Family, method: str, tmp_path: Path
) -> None:
    model, base, image = pretrained(family)
    adapt = functools.partial(UNFOLDABLE[method], model, None)  # pyright: ignore
    if family.name in REFUSED[method]:
        sentence = refusal(adapt)
        assert type(model.backbone).__name__ in sentence or "blocks." in sentence
        assert list(model.backbone.state_dict()) == list(base)
        return
    probe(model)  # some attention of torch rounds otherwise where nothing is trained
    with torch.no_grad():
        before = model(image)
    adaptation: Adaptation = adapt()
    with torch.no_grad():
        after = model.eval()(image)
        # Prompt tokens change the output from the start; the others begin with an update of zero.
        assert torch.equal(after, before) == (method != "vpt")
    own = {name: value for name, value in trainable(model).items() if "head" not in name}
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=3e-2)  # pyright: ignore
    for _ in range(3):
        step(model, adaptation, optimizer, image)
    check_gradients(model, own)
    with torch.no_grad():
        assert not torch.allclose(model.eval()(image), before, rtol=1e-3, atol=1e-3)
    check_round_trip(model, base, family, image, tmp_path)


@every_method
def test_a_loaded_adapter_is_the_trained_detector_and_training_goes_on(
    method: str, tmp_path: Path
) -> None:
    model = fresh()
    base = adapter.fingerprint(model)
    UNFOLDABLE[method](model, None)  # pyright: ignore
    stir(model)
    save(model, method, tmp_path)
    about = json.loads((tmp_path / "adapter.json").read_text())
    assert about["base"]["hash"] == base
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert {f"backbone.{name}" for name in tensors} == set(trainable(model))
    assert all(
        name.startswith((*(f"{layer}." for layer in about["layers"]), "head.")) for name in tensors
    )
    loaded = fresh()
    adapter.load(loaded, tmp_path)
    image = torch.rand(3, 3, 32, 32)
    assert torch.equal(loaded.eval()(image), model.eval()(image))
    losses = []
    for each in (model, loaded):
        torch.manual_seed(3)  # of dropout and noise
        optimizer = torch.optim.AdamW(decay_groups(each, 0.1), lr=1e-2)  # pyright: ignore
        each.train()
        for _ in range(3):
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(each(image), LABEL)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[:3] == losses[3:]


@every_method
def test_what_is_frozen_has_no_gradient_and_head_and_features_are_found(method: str) -> None:
    model = adapted(method).train()
    model(torch.rand(3, 3, 32, 32)).sum().backward()
    check_gradients(model, trainable(model))
    assert adapter.head_name(model) == "head"
    model.eval()
    features, logit = features_and_logits(model, torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(model.head()(features).squeeze(-1), logit)


@every_method
@pytest.mark.parametrize(
    "damage",
    [
        {"bottleneck": 10**9, "tokens": 10**9, "ranks": "1,2,1000000000"},
        {"bottleneck": "16", "channels": 5, "ranks": "7"},
        {"bottleneck": -1, "tokens": -1, "ranks": "3,-1,5"},
        {"more": 1},
    ],
)
def test_a_damaged_description_is_refused_before_memory_is_taken(
    method: str, damage: dict[str, object], tmp_path: Path
) -> None:
    save(adapted(method), method, tmp_path)
    about = json.loads((tmp_path / "adapter.json").read_text())
    for layer in about["layers"].values():
        layer.update({key: value for key, value in damage.items() if key in layer | {"more": 1}})
    loaded = tiny_vit()
    about["base"]["hash"] = adapter.fingerprint(loaded)
    (tmp_path / "adapter.json").write_text(json.dumps(about))
    assert "is damaged: the layer" in refusal(lambda: adapter.load(loaded, tmp_path))


@every_method
@pytest.mark.parametrize("name", ["", "norm", "patch_embed.proj", "blocks.0.attn"])
def test_a_description_that_names_another_module_is_refused(
    method: str, name: str, tmp_path: Path
) -> None:
    model = fresh()
    UNFOLDABLE[method](model, None)  # pyright: ignore
    save(model, method, tmp_path)
    about = json.loads((tmp_path / "adapter.json").read_text())
    old, layer = next(iter(about["layers"].items()))
    tensors = {
        key.removeprefix(f"{old}."): value
        for key, value in load_file(tmp_path / "adapter.safetensors").items()
        if key.startswith(f"{old}.")
    }
    about["layers"] = {name: layer}
    named = {f"{name}.{key}": value for key, value in tensors.items()}
    with pytest.raises(InputError, match="is damaged: the layer"):
        adapter.rebuild_layer(
            dict(fresh().backbone.named_modules())[name], name, about, named, tmp_path
        )


@every_method
def test_it_has_no_spectra(method: str) -> None:
    """They compare matrices of the backbone before and after training, and none has changed."""
    assert sample_matrices(adapted(method)) == []


# ---- folding and merging


def test_every_kind_folds_or_states_why_not() -> None:
    for kind, found in LAYER_KINDS.items():
        assert found.kind == kind
        assert hasattr(found, "fold") != hasattr(found, "unfoldable")
    for method in UNFOLDABLE:
        (own,) = {
            type(module) for module in adapted(method).modules() if hasattr(module, "unfoldable")
        }
        assert f"method={method} " in own.unfoldable  # pyright: ignore


@every_method
def test_folding_leaves_its_modules_and_the_outputs(method: str) -> None:
    model, image = adapted(method), torch.rand(2, 3, 32, 32)
    before = model(image)
    folded = fold_layers(copy.deepcopy(model)).eval()
    assert torch.equal(folded(image), before)
    own = [module for module in folded.modules() if isinstance(module, UnfoldableModule)]
    assert own
    assert not any(isinstance(module, AdaptedLayer) for module in own)


@every_method
def test_its_weights_are_no_expert(method: str, tmp_path: Path) -> None:
    model = fresh()
    base = adapter.fingerprint(model)
    UNFOLDABLE[method](model, None)  # pyright: ignore
    save(model, method, tmp_path)
    sentence = refusal(
        lambda: FoldedWeights(
            tmp_path, fresh().backbone.state_dict(), base, meta_detector(lambda **_: tiny_vit())
        )
    )
    assert f"method={method} " in sentence
    assert "cannot be merged, because" in sentence
    assert "fmsd.load" in sentence
    assert "method=lora" in sentence


def test_what_folds_is_not_refused_and_a_description_without_a_kind_is_left_to_loading(
    tmp_path: Path,
) -> None:
    check_foldable({"a": {"kind": "lora"}, "b": {"kind": "subspace"}}, tmp_path)
    check_foldable({"a": {}, "b": {"kind": [1]}}, tmp_path)


# ---- explanations


@pytest.mark.parametrize("method", ["adapter", "moe_lora"])
def test_a_rollout_of_new_weights_is_that_of_the_attention(method: str) -> None:
    model, image = adapted(method), torch.rand(2, 3, 32, 32)
    assert default_method(model) == "rollout"
    maps = rollout(model, image)
    assert maps.shape == (2, 4, 4)
    assert ((maps.sum((1, 2)) > 0.3) & (maps.sum((1, 2)) < 1.0001)).all()
    assert gradcam(model, image).shape == (2, 4, 4)


@torch.no_grad()
def test_what_flows_into_prompt_tokens_is_left_out_of_the_rollout() -> None:
    model, image = adapted("vpt"), torch.rand(2, 3, 32, 32)
    seen: list[torch.Tensor] = []
    for block in model.backbone.blocks:  # pyright: ignore
        block.block.attn.attn_drop.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].mean(1))
        )
    assert default_method(model) == "rollout"
    maps = rollout(model, image)
    joint = torch.eye(17).expand(2, 17, 17)
    for weights in seen:
        assert weights.shape == (2, 20, 20)
        kept = torch.cat([weights[:, :, :1], weights[:, :, 4:]], 2)
        kept = torch.cat([kept[:, :1], kept[:, 4:]], 1)
        joint = (kept + torch.eye(17)) / 2 @ joint
    torch.testing.assert_close(maps, joint[:, 0, 1:].unflatten(1, (4, 4)))


def test_gradcam_of_a_prompted_block_is_of_its_patches() -> None:
    model, image = adapted("vpt"), torch.rand(2, 3, 32, 32)
    found = gradcam(model, image)
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(found, gradcam(model, image, "blocks.1.block.norm1"))
    assert gradcam(model, image, "blocks.0").shape == (2, 4, 4)


# ---- exported files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("adapter", "vit_base_patch16_clip_224"),
        ("adapter", "convnext_atto"),
        ("vpt", "vit_base_patch16_clip_224"),
        ("vpt", "vit_small_patch16_dinov3"),
        ("moe_lora", "vit_base_patch16_clip_224"),
        ("moe_lora", "sam2_hiera_tiny"),
    ],
)
def test_exported_files_have_the_logits_of_torch(method: str, name: str, tmp_path: Path) -> None:
    family = NAMES[name]
    model = detector(name, family.size, **family.arguments)
    stir(model)
    UNFOLDABLE[method](model, None)  # pyright: ignore
    stir(model)
    portable = PortableDetector(model.eval(), None, None)
    about = metadata(family.size, None)
    write_pt2(trace(portable, family.size), about, tmp_path / "a.pt2")
    portable.use_plain_attention()
    write_onnx(trace(portable, family.size), portable, about, tmp_path / "a.onnx")
    coarse = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8)
    images = coarse.repeat_interleave(family.size // 4, 2).repeat_interleave(family.size // 4, 3)
    with torch.no_grad():
        expected = portable(images)[0].numpy()
        program = read_pt2(tmp_path / "a.pt2")[0](images)[0].numpy()
    assert np.ptp(expected) > 1e-2
    assert program == pytest.approx(expected, abs=1e-4)
    for batch in (slice(0, 1), slice(0, 3)):
        own = OnnxScorer(tmp_path / "a.onnx").run(images[batch].numpy())["logit"]
        assert own == pytest.approx(expected[batch], abs=1e-3)


# ---- the commands


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every method, and one of lora."""
    place = tmp_path_factory.mktemp("runs")
    crops = extract_faces(place)
    methods = {
        "adapter": ["method.bottleneck=4"],
        "vpt": ["method.tokens=2"],
        "moe_lora": ["method.ranks=[1,2]"],
        "lora": [],
    }
    for method, options in methods.items():
        words = [*TINY, f"method={method}", *options, f"data.root={crops}"]
        assert main(["train", *words[1:], f"hydra.run.dir={place / method}"]) == 0
    return place


@pytest.mark.slow
@every_method
def test_a_run_is_tested_explained_exported_loaded_and_judges_files(
    method: str, runs: Path, tmp_path: Path
) -> None:
    run, again = runs / method, tmp_path / "again"
    assert main(["evaluate", f"run={run}", f"hydra.run.dir={again}"]) == 0
    assert (again / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
    assert main(["explain", f"run={run}", "images=1", "frames=24", f"out={tmp_path / 'e'}"]) == 0
    assert (tmp_path / "e" / "heatmaps.png").is_file()
    film(tmp_path / "clip.mp4", walk(6))
    detectors = [fmsd.load(run, device="cpu")]
    for suffix in ("onnx", "pt2"):
        assert main(["export", f"run={run}", f"out={tmp_path / f'model.{suffix}'}"]) == 0
    detectors.append(fmsd.load(tmp_path / "model.onnx"))
    scores = [
        [frame.score for frame in each.predict(tmp_path / "clip.mp4", frames=4).frames]
        for each in detectors
    ]
    assert scores[0]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.slow
@every_method
def test_fold_and_merge_refuse_it_and_write_nothing(
    method: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "plain.safetensors"
    assert main(["fold", f"run={runs / method}", f"out={out}"]) == 2
    said = capsys.readouterr().err
    assert f"because method={method} " in said
    assert "fmsd evaluate, explain, predict, export, push and fmsd.load work with it" in said
    merged = tmp_path / "merged"
    experts = f"experts=[{runs / 'lora'},{runs / method}]"
    assert main(["merge", "merger=average", experts, "test=false", f"out={merged}"]) == 2
    assert f"because method={method} " in capsys.readouterr().err
    assert not out.exists()
    assert not (merged / "adapter.safetensors").exists()
