import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from fmsd.errors import InputError
from fmsd.models import containers
from fmsd.models.configured import backbone_shapes
from fmsd.models.formats import to_pretrained_keys, to_timm_keys
from fmsd.state import StateFile, read_state
from tests.test_families import FAMILIES

State = dict[str, Tensor]
Keys = Callable[[Mapping[str, Tensor], nn.Module, str], Mapping[str, Tensor]]
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def lively(model: nn.Module) -> nn.Module:
    """With norms and biases that matter, too."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


class Published(nn.Module):
    """DeepfakeBench's detector on CLIP: a vision tower under `backbone`, two outputs of its pooled
    class token.
    """

    def __init__(self, activation: str = "quick_gelu") -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 32,
        }
        self.backbone = CLIPVisionModel(CLIPVisionConfig(hidden_act=activation, **sizes))
        self.head = nn.Linear(24, 2)
        lively(self).eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image).pooler_output).softmax(1)[:, 1]


def clip(name: str = "vit_base_patch32_clip_quickgelu_224", **changes: Any) -> nn.Module:
    sizes: dict[str, Any] = {
        "num_classes": 1,
        "img_size": 64,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    }
    return timm.create_model(name, **(sizes | changes)).eval()


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def scores(state: Mapping[str, Tensor], model: nn.Module, image: Tensor) -> Tensor:
    model.load_state_dict(dict(state))
    return model(image).squeeze(1).sigmoid()


def agree(published: nn.Module, state: Mapping[str, Tensor], model: nn.Module) -> None:
    image = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        wanted = published(image)
        assert wanted.std() > 1e-3
        torch.testing.assert_close(scores(state, model, image), wanted, atol=1e-5, rtol=0)


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def published_names(state: Mapping[str, Tensor], style: str) -> State:
    if style == "parallel":
        return prefixed(state, "module.")
    # of transformers, whose tower was one attribute deeper and saved its indices
    if style == "older":
        state = {
            name.replace("backbone.", "backbone.vision_model."): tensor
            for name, tensor in state.items()
        }
        return {**state, "backbone.vision_model.embeddings.position_ids": torch.arange(5)[None]}
    return dict(state)


@pytest.mark.parametrize("style", ["plain", "parallel", "older"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_clip_of_hugging_face_scores_the_same(tmp_path: Path, style: str, suffix: str) -> None:
    published = Published()
    path, state = tmp_path / f"clip.{suffix}", published_names(published.state_dict(), style)
    save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    found = to_timm_keys(read_state(path), meta(clip), str(path))
    assert list(found) == list(clip().state_dict())
    agree(published, found, clip())


def test_clip_in_a_backbone_of_another_activation_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = lambda: clip("vit_base_patch32_clip_224")  # noqa: E731
    to_timm_keys(Published().state_dict(), meta(clip), "clip.pth")
    assert "QuickGELU" not in caplog.text
    published = Published("gelu")
    found = to_timm_keys(published.state_dict(), meta(other), "clip.pth")
    assert "clip.pth: OpenAI's CLIP computes QuickGELU" in caplog.text
    agree(published, found, other())


def effort(published: Published, rank: int = 1, extras: bool = True) -> State:
    """Its state dict as Effort saves it: attention in factors, whose product is the published
    weight.
    """
    state = published.state_dict()
    for layer in [
        name.removesuffix(".weight")
        for name in state
        if name.endswith(tuple(f"{part}.weight" for part in ATTENTION))
    ]:
        u, s, v = torch.linalg.svd(state.pop(f"{layer}.weight"))
        kept = len(s) - rank
        state[f"{layer}.weight_main"] = u[:, :kept] @ s[:kept].diag() @ v[:kept]
        if rank:
            state |= {
                f"{layer}.S_residual": s[kept:],
                f"{layer}.U_residual": u[:, kept:],
                f"{layer}.V_residual": v[kept:],
            }
        if extras:
            state |= {
                f"{layer}.S_r": s[:kept],
                f"{layer}.U_r": u[:, :kept],
                f"{layer}.V_r": v[:kept],
            }
            state[f"{layer}.weight_original_fnorm"] = s.norm()
    return state


@pytest.mark.parametrize(("rank", "extras"), [(1, True), (1, False), (3, True), (0, False)])
def test_effort_becomes_dense(rank: int, extras: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    published = Published()
    found = to_timm_keys(
        prefixed(effort(published, rank, extras), "module."), meta(clip), "effort.pth"
    )
    assert (
        ".S_r, " in caplog.text and "and 27 more" in caplog.text
    ) == extras  # 4 tensors of 8 layers
    agree(published, found, clip())


def test_effort_with_more_or_fewer_factors_is_refused() -> None:
    state = effort(Published())
    gate = "backbone.encoder.layers.0.self_attn.q_proj.gate_param"
    with pytest.raises(InputError, match=r"effort\.pth .*unexpected: .*q_proj\.gate_param"):
        to_timm_keys({**state, gate: torch.ones(1)}, meta(clip), "effort.pth")
    del state["backbone.encoder.layers.0.self_attn.q_proj.S_residual"]
    with pytest.raises(
        InputError, match=r"missing: blocks\.0\.attn\.qkv\.weight; unexpected: .*q_proj\.U_residual"
    ):
        to_timm_keys(state, meta(clip), "effort.pth")


def xception() -> nn.Module:
    return timm.create_model("legacy_xception", num_classes=1).eval()


@pytest.mark.parametrize("head", ["last_linear", "last_linear.1"])
def test_xception_comes_back(head: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in xception().state_dict().items()
    }
    real = {"weight": torch.randn(1, 2048), "bias": torch.randn(1)}
    state = {
        name: tensor.flatten(1) if "pointwise" in name else tensor
        for name, tensor in own.items()
        if not name.startswith("fc.")
    }
    state |= {
        f"{head}.{part}": torch.cat([value, own[f"fc.{part}"] + value])
        for part, value in real.items()
    }
    state |= {
        "adjust_channel.0.weight": torch.zeros(512, 2048, 1, 1),
        "adjust_channel.1.num_batches_tracked": torch.tensor(0),
    }
    found = to_timm_keys(prefixed(state, "backbone."), meta(xception), "xception_best.pth")
    assert (
        "left out tensors of DeepfakeBench's Xception that its logit does not depend on: "
        "adjust_channel.0.weight, adjust_channel.1." in caplog.text
    )
    assert found.keys() == own.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, own[name], atol=1e-5 if name.startswith("fc.") else 0, rtol=0
        )
    xception().load_state_dict(dict(found))


def test_a_head_of_two_outputs_in_timms_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    two = lively(clip(num_classes=2))
    found = to_timm_keys(prefixed(two.state_dict(), "module."), meta(clip), "two.pth")
    assert (
        "two.pth: head.weight of two outputs, real and fake, became their difference" in caplog.text
    )
    agree(nn.Sequential(two, nn.Softmax(1), Column()), found, clip())


class Column(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values[:, 1]


def test_half_precision_heads_are_subtracted_exactly() -> None:
    state = {name: tensor.half() for name, tensor in clip(num_classes=2).state_dict().items()}
    found = to_timm_keys(state, meta(clip), "half.pth")
    assert torch.equal(
        found["head.weight"][0], state["head.weight"][1].float() - state["head.weight"][0].float()
    )
    assert found["norm.weight"] is state["norm.weight"]


@pytest.mark.parametrize("name", ["head", "fc", "classifier"])
def test_another_head_is_refused(name: str) -> None:
    five = {
        key.replace("head.", f"{name}."): tensor
        for key, tensor in clip(num_classes=5).state_dict().items()
    }
    with pytest.raises(
        InputError,
        match=(
            r"five\.pth end in another head \(head\.weight \(5, 24\) instead of \(1, 24\)\); "
            r"choose"
        ),
    ):
        to_timm_keys(prefixed(five, "backbone."), meta(clip), "five.pth")


def test_two_heads_are_not_chosen_from() -> None:
    state = Published().state_dict()
    with pytest.raises(InputError, match=r"unexpected: fc\.weight"):
        to_timm_keys({**state, "fc.weight": torch.zeros(2, 24)}, meta(clip), "both.pth")
    with pytest.raises(InputError, match=r"unexpected: backbone\."):
        to_timm_keys({**state, "backbone.head.weight": torch.zeros(2, 24)}, meta(clip), "both.pth")


def test_the_sentence_names_what_differs() -> None:
    state = Published().state_dict()
    del state["backbone.post_layernorm.weight"]
    state["backbone.visual_projection.weight"] = torch.zeros(8, 24)
    state["backbone.pre_layrnorm.bias"] = torch.zeros(25)
    sentence = (
        r"The weights odd\.pth are not those of VisionTransformer as configured \(missing: "
        r"norm\.weight; unexpected: visual_projection\.weight; "
        r"of another shape: norm_pre\.bias \(25,\) instead of \(24,\)\); choose the "
        r"backbone they belong to\."
    )
    with pytest.raises(InputError, match=sentence):
        to_timm_keys(state, meta(clip), "odd.pth")
    for nothing in (
        {},
        {"model": torch.zeros(1)},
        {"head.weight": torch.zeros(2, 24)},
        {"patch_embed.proj.weight": torch.zeros(7)},
    ):
        with pytest.raises(
            InputError, match=r"The weights odd\.pth are not those of VisionTransformer.* more"
        ):
            to_timm_keys(nothing, meta(clip), "odd.pth")


def test_another_patch_size_is_refused_not_resampled() -> None:
    with pytest.raises(
        InputError,
        match=(
            r"\(of another shape: patch_embed\.proj\.weight \(24, 3, 32, 32\) instead of \(24, "
            r"3, 16, 16\), pos_embed"
        ),
    ):
        to_timm_keys(Published().state_dict(), meta(lambda: clip(patch_size=16)), "clip.pth")


def test_timms_own_conversion_is_the_last_resort(caplog: pytest.LogCaptureFixture) -> None:
    """OpenAI's names, which timm converts; their projection is the head."""
    caplog.set_level(logging.INFO)
    own = {name: torch.randn_like(tensor) for name, tensor in clip().state_dict().items()}
    swaps = [
        ("blocks.", "transformer.resblocks."),
        ("norm_pre", "ln_pre"),
        ("patch_embed.proj", "conv1"),
        ("attn.qkv.", "attn.in_proj_"),
    ]
    swaps += [
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        (".norm1", ".ln_1"),
        (".norm2", ".ln_2"),
    ]
    state = {}
    for name, tensor in own.items():
        for new, old in swaps:
            name = name.replace(new, old)  # noqa: PLW2901
        state[f"visual.{name}"] = tensor
    state["visual.class_embedding"] = state.pop("visual.cls_token").flatten()
    state["visual.positional_embedding"] = state.pop("visual.pos_embed")[0]
    for part in ("weight", "bias"):
        state[f"visual.ln_post.{part}"] = state.pop(f"visual.norm.{part}")
        del state[f"visual.head.{part}"]
    state["visual.proj"] = own["head.weight"].T
    found = to_timm_keys(prefixed(state, "module."), meta(clip), "openai.pt")
    assert "openai.pt: trying timm's own conversion to VisionTransformer" in caplog.text
    assert all(
        torch.equal(found[name], tensor) for name, tensor in own.items() if name != "head.bias"
    )


def test_what_fits_is_returned_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(clip().state_dict(), tmp_path / "own.safetensors")
    state = read_state(tmp_path / "own.safetensors")
    monkeypatch.setattr(StateFile, "__getitem__", lambda *_: pytest.fail("a tensor was read"))
    # the type checker of the tests would read one
    assert inspect.unwrap(to_timm_keys)(state, meta(clip), "own.safetensors") is state
    own = xception().state_dict()  # with counters, which have no dimension
    assert to_timm_keys(own, meta(xception), "own.pth") is own


@pytest.mark.parametrize("keys", [to_timm_keys, to_pretrained_keys])
def test_every_wrapper_comes_off_alike_for_a_merge_and_for_a_training(keys: Keys) -> None:
    own = clip().state_dict()
    for prefix in (*containers.WRAPPERS, "teacher.", "student.backbone.", "module.net.encoder."):
        found = keys(prefixed(own, prefix), meta(clip), "own.pth")
        assert found.keys() == own.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in own.items())


def test_a_head_outside_the_wrapper_comes_along() -> None:
    own = clip().state_dict()
    for prefix in containers.WRAPPERS:
        assert to_timm_keys(prefixed(own, prefix), meta(clip), "own.pth").keys() == own.keys()
        headless = {
            name if name.startswith("head.") else f"{prefix}{name}": tensor
            for name, tensor in own.items()
        }
        assert (
            to_timm_keys(prefixed(headless, "module."), meta(clip), "own.pth").keys() == own.keys()
        )


@pytest.mark.parametrize("keys", [to_timm_keys, to_pretrained_keys])
@pytest.mark.parametrize(
    "entries",
    [
        ("student", "teacher"),
        ("state_dict", "state_dict_ema"),
        ("teacher.backbone", "student.backbone"),
    ],
)
def test_two_whole_networks_in_a_file_are_not_chosen_from(
    entries: tuple[str, str], keys: Keys, tmp_path: Path
) -> None:
    one, other = entries
    if "." in one:
        torch.save(
            prefixed(clip().state_dict(), f"{one}.") | prefixed(clip().state_dict(), f"{other}."),
            tmp_path / "two.pth",
        )
    else:
        torch.save(
            {one: clip().state_dict(), other: clip().state_dict(), "epoch": 3}, tmp_path / "two.pth"
        )
    with pytest.raises(
        InputError,
        match=(
            r"two\.pth hold several networks, whose names begin with '.*', '.*'; save the one "
            r"that you mean"
        ),
    ) as caught:
        keys(read_state(tmp_path / "two.pth"), meta(clip), str(tmp_path / "two.pth"))
    assert all(f"'{entry}.'" in str(caught.value) for entry in entries)


def test_a_network_beside_its_moving_average_is_not_chosen_from() -> None:
    state = Published().state_dict()
    with pytest.raises(
        InputError,
        match=r"several networks, whose names begin with 'backbone\.', 'ema\.backbone\.'",
    ):
        to_pretrained_keys(state | prefixed(state, "ema."), meta(clip), "clip.pth")


@pytest.mark.parametrize("entry", ["teacher", "student", "ema", "state_dict", "model"])
def test_a_training_begins_with_the_only_network_in_a_file(
    entry: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    own = {
        name: tensor for name, tensor in clip().state_dict().items() if not name.startswith("head.")
    }
    projection = {
        "head.mlp.0.weight": torch.zeros(8, 24),
        "head.last_layer.weight": torch.zeros(5, 8),
    }
    torch.save(
        {
            entry: prefixed(own, "backbone.") | projection,
            "epoch": 3,
            "optimizer": {"state": {0: {"step": torch.ones(1)}}},
        },
        tmp_path / "one.pth",
    )
    found = to_pretrained_keys(read_state(tmp_path / "one.pth"), meta(clip), "one.pth")
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in own.items())
    assert (
        "other parts than backbone that its logit does not depend on: head.last_layer.weight, "
        "head.mlp.0.weight" in caplog.text
    )


def test_a_training_begins_with_what_a_merge_takes() -> None:
    """Hugging Face's names and Effort's factors, too; its head of two outputs is not taken over, as
    nothing says what they are.
    """
    published = Published()
    for state in (published.state_dict(), effort(published)):
        merged, begun = (
            to_timm_keys(state, meta(clip), "a.pth"),
            to_pretrained_keys(state, meta(clip), "a.pth"),
        )
        assert begun.keys() == {name for name in merged if not name.startswith("head.")}
        assert all(torch.equal(begun[name], merged[name]) for name in begun)


@pytest.mark.parametrize("keys", [to_timm_keys, to_pretrained_keys])
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32, torch.bool])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_quantised_weights_are_refused(
    suffix: str, kind: torch.dtype, keys: Keys, tmp_path: Path
) -> None:
    """As bitsandbytes saves them: bytes in the weight's place and shape, with scales beside them or
    without.
    """
    name, path = "blocks.0.attn.qkv.weight", tmp_path / f"int8.{suffix}"
    for scales in ({}, {"blocks.0.attn.qkv.SCB": torch.ones(72)}):
        for shape in ((72, 24), (864, 1)):
            state = {**clip().state_dict(), name: torch.zeros(shape, dtype=kind), **scales}
            save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
            for prefix in ("", "model."):
                with pytest.raises(
                    InputError,
                    match=(
                        r"are quantised \(.*blocks\.0\.attn\.qkv\.weight is of type .*; give "
                        r"the checkpoint"
                    ),
                ):
                    keys(
                        prefixed(read_state(path), prefix) if prefix else read_state(path),
                        meta(clip),
                        str(path),
                    )


def test_tensors_without_values_are_refused() -> None:
    with pytest.raises(InputError, match="hold no dense values of"):
        to_pretrained_keys(meta(clip).state_dict(), clip(), "meta.pth")


@pytest.mark.slow
def test_every_network_refuses_the_weights_of_every_other_with_one_sentence() -> None:
    """Whatever timm's conversions do with weights that are not of their model."""
    networks = {
        family.name: timm.create_model(family.name, num_classes=1, **family.arguments)
        for family in FAMILIES
    }
    shapes = {
        name: {key: tensor.shape for key, tensor in network.state_dict().items()}
        for name, network in networks.items()
    }
    for name, network in networks.items():
        for other, state in ((other, networks[other].state_dict()) for other in networks):
            for keys in (inspect.unwrap(to_timm_keys), inspect.unwrap(to_pretrained_keys)):
                if shapes[other] == shapes[name]:
                    assert keys(state, network, "other.pth").keys() == state.keys()
                    continue
                with pytest.raises(
                    InputError,
                    match=r"^The weights other\.pth (are (not )?those of|end in another head)",
                ) as caught:
                    keys(state, network, "other.pth")
                assert "\n" not in str(caught.value)


def test_weights_of_another_configured_backbone_are_known_by_their_shapes() -> None:
    build = lambda: timm.create_model("tf_efficientnet_lite0", num_classes=1000)  # noqa: E731
    state = meta(build).state_dict()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
    with pytest.raises(
        InputError,
        match=(
            r"a\.pth are those of backbone=efficientnet_lite0, not of VisionTransformer as "
            r"configured \(missing: .*; choose that"
        ),
    ):
        to_pretrained_keys(prefixed(state, "module."), meta(clip), "a.pth")
    state["bn1.weight"] = torch.zeros(33)  # one shape that differs: not known, so not said
    with pytest.raises(
        InputError, match=r"a\.pth are not those of VisionTransformer as configured"
    ):
        to_pretrained_keys(state, meta(clip), "a.pth")


def test_the_bodies_of_all_configured_backbones_are_told_apart() -> None:
    found = backbone_shapes()
    assert {"clip_vit_l14", "dinov2_s14", "sam2_hiera_tiny", "demo_vit"} <= found.keys()
    alike: dict[frozenset[Any], set[str]] = {}
    for name, (_, shapes) in found.items():
        alike.setdefault(frozenset(shapes.items()), set()).add(name)
    assert [names for names in alike.values() if len(names) > 1] == [
        {"clip_vit_l14", "clip_vit_l14_336"},  # one network at two sizes
        {"pe_core_l14", "pe_core_l14_336"},
    ]
