"""Pretrained files in the formats of Hugging Face, Meta and OpenAI compute what they did there.

The files of Hugging Face are written by `transformers`; the others have the published names and
shapes, and are made of a timm model's tensors.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from fmsd.errors import InputError
from fmsd.models.detector import detector, load_weights

State = dict[str, Tensor]

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
    "image_size": 28,
}
NARROW: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 28}
PATCH16: dict[str, Any] = NARROW | {"img_size": 32}

CLIP = "vit_large_patch14_clip_quickgelu_224"
DINOV2, REGISTERS = "vit_large_patch14_dinov2", "vit_large_patch14_reg4_dinov2"
DINOV3, BIASED = "vit_base_patch16_dinov3", "vit_base_patch16_dinov3_qkvb"
TOKEN: dict[str, Any] = PATCH16 | {"global_pool": "token"}
SIGLIP, PE = "vit_base_patch16_siglip_224", "vit_pe_core_large_patch14_336"

CASES: dict[str, tuple[Any, Any, dict[str, Any], str, dict[str, Any]]] = {
    "clip": (CLIPVisionModel, CLIPVisionConfig, {}, CLIP, NARROW),
    "dinov2": (Dinov2Model, Dinov2Config, {}, DINOV2, NARROW),
    "registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"num_register_tokens": 4},
        REGISTERS,
        NARROW,
    ),
    "dinov3": (
        DINOv3ViTModel,
        DINOv3ViTConfig,
        {"patch_size": 16, "num_register_tokens": 4},
        BIASED,
        TOKEN,
    ),
    "siglip": (
        SiglipVisionModel,
        SiglipVisionConfig,
        # timm computes the exact GELU, Hugging Face its approximation by tanh
        {"patch_size": 16, "image_size": 32, "hidden_act": "gelu"},
        SIGLIP,
        PATCH16,
    ),
}


def lively(model: nn.Module) -> Any:
    """With norms, biases and layer scales that matter, too."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    torch.manual_seed(5)
    return timm.create_model(name, num_classes=1, **arguments).eval()


@torch.no_grad()
def features(model: Any, image: Tensor) -> Tensor:
    """The input of a timm model's classifier."""
    return model.forward_head(model.forward_features(image), pre_logits=True)


# ---- Hugging Face


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("style", ["published", "in memory", "tower"])
def test_features_are_those_of_transformers(case: str, style: str, tmp_path: Path) -> None:
    model_type, config_type, changes, name, arguments = CASES[case]
    published = lively(model_type(config_type(**SIZES | changes)))
    path = tmp_path / "model.safetensors"
    published.save_pretrained(tmp_path)  # with the names of published files, if they differ
    state = dict(published.state_dict()) if style == "in memory" else load_file(path)
    if style == "tower":  # of a model with a text tower
        state = {f"vision_model.{key}": value for key, value in state.items()}
        state |= {"logit_scale": torch.ones(()), "text_model.norm.weight": torch.ones(24)}
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    loaded = build(name, arguments)
    head = {key: value.clone() for key, value in loaded.get_classifier().state_dict().items()}  # pyright: ignore
    load_weights(loaded, path)
    image = torch.randn(3, 3, arguments["img_size"], arguments["img_size"])
    with torch.no_grad():
        wanted = published(image).pooler_output
    assert wanted.std() > 1e-2
    torch.testing.assert_close(features(loaded, image), wanted, rtol=1e-3, atol=1e-4)
    for key, value in loaded.get_classifier().state_dict().items():  # pyright: ignore
        assert torch.equal(value, head[key])


@pytest.mark.parametrize("case", ["clip", "dinov2", "registers", "siglip"])
def test_another_input_size_resamples_the_positions(case: str, tmp_path: Path) -> None:
    model_type, config_type, changes, name, arguments = CASES[case]
    lively(model_type(config_type(**SIZES | changes))).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    same, larger = build(name, arguments), build(name, arguments | {"img_size": 112})
    load_weights(same, path)
    load_weights(larger, path)
    prefix = 0 if case in ("registers", "siglip") else 1
    torch.testing.assert_close(
        larger.pos_embed,
        resample_abs_pos_embed(
            same.pos_embed,  # pyright: ignore[reportArgumentType]
            [112 // same.patch_embed.patch_size[0]] * 2,  # pyright: ignore
            num_prefix_tokens=prefix,
        ),
    )


def test_biases_of_dinov3_are_left_out_only_if_they_are_zero(tmp_path: Path) -> None:
    model_type, config_type, changes, _, _ = CASES["dinov3"]
    published = lively(model_type(config_type(**SIZES | changes)))
    for zero in (False, True):
        if zero:
            for name, parameter in published.named_parameters():
                if name.endswith(("q_proj.bias", "v_proj.bias")):
                    nn.init.zeros_(parameter)
        published.save_pretrained(tmp_path)
        path, loaded = tmp_path / "model.safetensors", build(DINOV3, TOKEN)
        if zero:
            load_weights(loaded, path)
            image = torch.randn(3, 3, 32, 32)
            with torch.no_grad():
                wanted = published(image).pooler_output
            torch.testing.assert_close(features(loaded, image), wanted, rtol=1e-3, atol=1e-4)
        else:
            with pytest.raises(InputError, match=r"has biases of queries and values.*dinov3_qkvb"):
                load_weights(loaded, path)


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_lacks_a_tensor_or_has_one_more_is_refused(case: str, tmp_path: Path) -> None:
    model_type, config_type, changes, name, arguments = CASES[case]
    state = dict(model_type(config_type(**SIZES | changes)).state_dict())
    fc2 = next(key for key in state if re.search(r"\.1\.mlp\.(fc2|down_proj)\.weight", key))
    for wrong in (
        {key: value for key, value in state.items() if key != fc2},
        state | {fc2.replace(".1.", ".2."): state[fc2].clone()},
    ):
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(InputError, match=r"wrong\.safetensors are not those of"):
            load_weights(build(name, arguments), tmp_path / "wrong.safetensors")


# ---- Meta and OpenAI


def renamed(state: State, pairs: Sequence[tuple[str, str]]) -> State:
    """A state dict with other names, patterns applied in their order."""
    found = {}
    for name, tensor in state.items():
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)  # noqa: PLW2901
        found[name] = tensor
    return found


def without_head(model: nn.Module) -> State:
    return {name: value for name, value in model.state_dict().items() if name[:5] != "head."}


OPENAI = (
    (r"^blocks\.", "transformer.resblocks."),
    (r"^norm_pre\.", "ln_pre."),
    (r"^norm\.", "ln_post."),
    (r"\.norm(\d)\.", r".ln_\1."),
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^cls_token$", "class_embedding"),
    (r"^pos_embed$", "positional_embedding"),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^attn_pool\.(q|kv)\.", r"attn_pool.attn.\1."),
    (r"^attn_pool\.proj\.", "attn_pool.attn.out_proj."),
    (r"^attn_pool\.norm\.", "attn_pool.layernorm."),
    (r"^attn_pool\.latent$", "attn_pool.probe"),
)
"""From timm's names to those of OpenAI's CLIP and of Meta's Perception Encoder."""


def openai_style(model: nn.Module) -> State:
    """A whole checkpoint: the vision tower, its projection, and some of the text tower."""
    state = renamed(without_head(model), OPENAI)
    state["class_embedding"] = state["class_embedding"].flatten()
    state["positional_embedding"] = state["positional_embedding"][0]
    for part in ("weight", "bias"):
        if f"attn_pool.attn.q.{part}" in state:
            stack = [state.pop(f"attn_pool.attn.{each}.{part}") for each in ("q", "kv")]
            state[f"attn_pool.attn.in_proj_{part}"] = torch.cat(stack)
    state["proj"] = torch.randn(24, 16)
    text = {"ln_final.weight": torch.ones(8), "logit_scale": torch.ones(())}
    text |= {"input_resolution": torch.tensor(28), "vocab_size": torch.tensor(9)}
    text["transformer.resblocks.0.ln_1.weight"] = torch.ones(8)
    return {f"visual.{name}": value for name, value in state.items()} | text


def meta_dinov3(model: nn.Module) -> State:
    """DINOv3's hub file: fused biases with a mask, and the periods of its rotation."""
    state = renamed(
        without_head(model),
        ((r"\.gamma_([12])$", r".ls\1.gamma"), (r"^reg_token$", "storage_tokens")),
    )
    for name in [name for name in state if name.endswith(".attn.qkv.weight")]:
        layer = name.removesuffix("qkv.weight")
        query = state.pop(f"{layer}q_bias", torch.zeros(24))
        value = state.pop(f"{layer}v_bias", torch.zeros(24))
        state[f"{layer}qkv.bias"] = torch.cat([query, torch.ones(24), value])
        state[f"{layer}qkv.bias_mask"] = torch.tensor([1.0, 0, 1]).repeat_interleave(24)
    state["rope_embed.periods"] = torch.ones(3)
    return state | {"mask_token": torch.zeros(1, 24)}


def meta_dinov2(model: nn.Module) -> State:
    return without_head(model) | {"mask_token": torch.zeros(1, 24)}


ORIGINALS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "OpenAI's CLIP": (openai_style, CLIP, NARROW),
    "Meta's PE-Core": (openai_style, PE, NARROW),
    "Meta's DINOv2": (meta_dinov2, DINOV2, NARROW),
    "Meta's DINOv3": (meta_dinov3, DINOV3, TOKEN),
    "Meta's DINOv3 with biases": (meta_dinov3, BIASED, TOKEN),
}


@pytest.mark.parametrize("case", ORIGINALS)
def test_files_of_meta_and_openai_are_converted(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    style, name, arguments = ORIGINALS[case]
    original = lively(build(name, arguments))
    torch.save(style(original), tmp_path / "published.pth")
    loaded = build(name, arguments)
    load_weights(loaded, tmp_path / "published.pth")
    for key, value in without_head(original).items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert not capsys.readouterr().out


@pytest.mark.parametrize("case", ["OpenAI's CLIP", "Meta's PE-Core", "Meta's DINOv2"])
def test_their_positions_are_resampled_to_another_size(case: str, tmp_path: Path) -> None:
    style, name, arguments = ORIGINALS[case]
    original = lively(build(name, arguments))
    torch.save(style(original), tmp_path / "published.pth")
    larger = build(name, arguments | {"img_size": 56})
    load_weights(larger, tmp_path / "published.pth")
    wanted = resample_abs_pos_embed(original.pos_embed, [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(larger.pos_embed, wanted)
    assert torch.equal(larger.state_dict()["norm.weight"], original.state_dict()["norm.weight"])


def test_registers_of_dinov2_lie_beside_positions_of_class_and_patches(tmp_path: Path) -> None:
    original = lively(build(REGISTERS, NARROW))
    state = meta_dinov2(original)
    position = torch.randn(1, 1, 24)
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - position
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    torch.save(state, tmp_path / "published.pth")
    loaded = build(REGISTERS, NARROW)
    load_weights(loaded, tmp_path / "published.pth")
    for key, value in without_head(original).items():
        torch.testing.assert_close(loaded.state_dict()[key], value)


def test_a_preset_of_another_network_is_refused_whole(tmp_path: Path) -> None:
    torch.save(openai_style(lively(build(PE, NARROW))), tmp_path / "pe.pth")
    for name, arguments in ((CLIP, NARROW), (DINOV2, NARROW), (SIGLIP, PATCH16), (DINOV3, TOKEN)):
        with pytest.raises(InputError, match=r"pe\.pth are not those of"):
            detector(name, 28, weights=tmp_path / "pe.pth", **arguments)
