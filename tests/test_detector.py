import errno
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector, hub_error, weights_path
from fmsd.peft import adapter
from fmsd.peft.full import full
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from tests.conftest import tiny_vit


def test_bytes_and_floats_give_the_same_logit(tiny: Detector) -> None:
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    logit = tiny(image)
    assert logit.shape == (4,)
    torch.testing.assert_close(tiny(image.float() / 255), logit)


def test_normalisation_is_the_backbones_own(tiny: Detector) -> None:
    seen: list[torch.Tensor] = []
    tiny.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (
        timm.data.resolve_model_data_config(tiny.backbone)["mean"],
        timm.data.resolve_model_data_config(tiny.backbone)["std"],
    )
    image = torch.rand(1, 3, 32, 32)
    tiny(image)
    torch.testing.assert_close(
        seen[0], (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    )
    clip = detector("vit_tiny_patch16_224", size=32, img_size=32)
    assert clip.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_weights_load_strictly_and_leave_out_only_a_foreign_head(tmp_path: Path) -> None:
    one, other = tiny_vit(), tiny_vit()
    state = {key: value.half() for key, value in one.backbone.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    torch.save({"state_dict": state}, tmp_path / "whole.pth")
    save_file(
        {key: value for key, value in state.items() if "head" not in key},
        tmp_path / "headless.safetensors",
    )
    thousand = {**state, "head.weight": torch.zeros(1000, 24), "head.bias": torch.zeros(1000)}
    save_file(thousand, tmp_path / "classes.safetensors")
    for name, headed in (
        ("whole.safetensors", True),
        ("whole.pth", True),
        ("headless.safetensors", False),
        ("classes.safetensors", False),
    ):
        loaded = tiny_vit(weights=tmp_path / name)
        assert loaded.backbone.state_dict()["blocks.1.mlp.fc1.weight"].dtype == torch.float32
        for key, value in loaded.backbone.state_dict().items():
            assert ("head" in key and not headed) or torch.equal(value, state[key].float())
    assert not torch.equal(
        other.backbone.state_dict()["patch_embed.proj.weight"],
        one.backbone.state_dict()["patch_embed.proj.weight"],
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_point_type_loads_as_the_backbones_own(
    kind: torch.dtype, tmp_path: Path
) -> None:
    state = {key: value.to(kind) for key, value in tiny_vit().backbone.state_dict().items()}
    # not contiguous
    state["blocks.0.mlp.fc1.weight"] = state["blocks.0.mlp.fc1.weight"].t().contiguous().t()
    state["blocks.1.norm1.weight"] = state["blocks.0.norm1.weight"]  # shared
    torch.save(
        {"state_dict": {key: torch.nn.Parameter(value) for key, value in state.items()}},
        tmp_path / "a.pth",
    )
    for key, value in tiny_vit(weights=tmp_path / "a.pth").backbone.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float())


def test_weights_of_another_backbone_are_refused_with_the_keys(tmp_path: Path) -> None:
    save_file(tiny_vit(depth=1).backbone.state_dict(), tmp_path / "short.safetensors")
    with pytest.raises(
        InputError, match=r"missing: blocks\.1\.attn\.proj\.bias.*choose the backbone"
    ):
        tiny_vit(weights=tmp_path / "short.safetensors")
    save_file(tiny_vit(depth=3).backbone.state_dict(), tmp_path / "long.safetensors")
    with pytest.raises(InputError, match=r"unexpected: blocks\.2\.attn\.proj\.bias.* and 7 more"):
        tiny_vit(weights=tmp_path / "long.safetensors")
    save_file(tiny_vit(embed_dim=48).backbone.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"of another shape: blocks\.0.* instead of"):
        tiny_vit(weights=tmp_path / "wide.safetensors")


def test_unknown_names_and_arguments_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"no model 'vit_tinny_patch16_224'; close names: vit_tiny_patch16_224"
    ):
        detector("vit_tinny_patch16_224", size=224)
    with pytest.raises(
        InputError,
        match=r"'tf_efficientnet_lite0' does not take one of the arguments img_size",
    ):
        detector("tf_efficientnet_lite0", size=64, img_size=64)


def test_a_backbone_with_two_classifiers_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=(
            r"VisionTransformerDistilled ends in 2 classifiers; choose a backbone with a single "
            r"one"
        ),
    ):
        probe(detector("deit_tiny_distilled_patch16_224", 32, img_size=32))


def test_a_cache_of_the_hub_that_cannot_be_written_is_named_with_its_variable() -> None:
    said = str(
        hub_error(
            "vit", PermissionError(errno.EACCES, "Permission denied", "/home/x/.cache/huggingface")
        )
    )
    assert said.startswith(
        "The pretrained weights of 'vit' cannot be kept in /home/x/.cache/huggingface (Permission "
        "denied); set HF_HOME"
    )
    assert "could not be loaded from the hub (no route)" in str(
        hub_error("vit", ConnectionError("no route"))
    )
    advice = "Weights only load failed. Re-running with weights_only=False will likely succeed"
    assert "weights_only" not in str(hub_error("vit", pickle.UnpicklingError(advice)))


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    model = detector("tf_efficientnet_lite0", size=64)
    image = torch.rand(4, 3, 64, 64)
    model.requires_grad_(False)
    model.head().requires_grad_(True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(image)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.requires_grad_(True)
    model.train()(image)
    assert any(
        not torch.equal(value, before[key])
        for key, value in model.state_dict().items()
        if "running" in key
    )


def test_a_batch_norm_without_parameters_moves_under_full_and_belongs_to_the_adapter(
    tmp_path: Path,
) -> None:
    def network() -> Detector:
        torch.manual_seed(1)
        model = detector("tf_efficientnet_lite0", size=32)
        model.backbone.bn1 = nn.BatchNorm2d(32, affine=False)  # pyright: ignore
        return model

    statistics, image = (
        ("bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"),
        torch.rand(4, 3, 32, 32),
    )
    for method, moves in ((full, True), (norm, False), (probe, False)):
        model = network()
        before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
        base = adapter.fingerprint(model)
        method(model)
        model.train()(image)
        after = model.backbone.state_dict()
        assert [not torch.equal(after[key], before[key]) for key in statistics] == [moves] * 3
        assert {*statistics} <= adapter.state_dict(model).keys() or not moves
        assert moves or not {*statistics} & adapter.state_dict(model).keys()
        adapter.save(model, tmp_path / method.__name__, {"name": "mine", "hash": base}, {})
        loaded = network()
        adapter.load(loaded, tmp_path / method.__name__)
        assert torch.equal(loaded.eval()(image), model.eval()(image))


def test_the_embedded_backbone_is_small_and_knows_something() -> None:
    file = weights_path("package:demo_vit.safetensors")
    assert file.stat().st_size <= 6e6
    state = load_file(file)
    assert sum(value.numel() for value in state.values()) <= 3e6
    assert {value.dtype for value in state.values()} == {torch.float16}
    model = tiny_vit(
        weights="package:demo_vit.safetensors", img_size=64, embed_dim=160, depth=6, num_heads=5
    )
    assert isinstance(model.head(), nn.Linear)


@pytest.mark.parametrize(
    ("name", "file"),
    [("sam2_hiera_tiny", "sam2_hiera_tiny"), ("tf_efficientnet_lite0", "tf_efficientnet_lite0")],
)
def test_real_pretrained_weights_load_strictly(real_data: Path, name: str, file: str) -> None:
    path = real_data / "weights" / f"{file}.safetensors"
    model = detector(name, size=128, weights=path)
    state = model.backbone.state_dict()
    for key, value in load_file(path).items():
        assert (
            key not in state
            or state[key].shape != value.shape
            or torch.equal(state[key], value.to(state[key].dtype))
        )
    assert model(torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)).isfinite().all()
