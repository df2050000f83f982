"""Imported detectors: their logits are those of the published networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector
from fmsd.models.imported import (
    backbone_settings,
    convert_detector,
    copy_weights,
    read_gend_head,
    recognise_layout,
)
from fmsd.models.layouts import LAYOUTS
from fmsd.state import tensor_shapes
from tests.published import (
    CLIP_STATISTICS,
    HALF_STATISTICS,
    IMAGENET_STATISTICS,
    NARROW_CLIP,
    ClipEncoder,
    DeepfakeBenchClip,
    DinoEncoder,
    EfficientNetB4,
    Effort,
    Gend,
    PerceptionEncoder,
    Xception,
    lively,
    noisy,
)

SOURCE = "published.pth"

NARROW_DINO = {
    "name": "vit_base_patch16_dinov3_qkvb",
    "size": 64,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
}

NARROW_PE = {
    "name": "vit_pe_core_large_patch14_336",
    "size": 56,
    "img_size": 84,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "attn_pool_num_heads": 2,
}


class Case(NamedTuple):
    """A published detector.

    Args:
        build: the network.
        about: its name.
        given: settings of a backbone of its width.
        statistics: mean and std that its code normalises images with.
    """

    build: Callable[[], nn.Module]
    about: str
    given: dict[str, Any]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


CASES = {
    "gend clip": Case(
        lambda: noisy(Gend(ClipEncoder(), 24)), "GenD on CLIP", NARROW_CLIP, CLIP_STATISTICS
    ),
    "gend dinov3": Case(
        lambda: noisy(Gend(DinoEncoder(), 32)), "GenD on DINOv3", NARROW_DINO, IMAGENET_STATISTICS
    ),
    "gend pe": Case(
        lambda: noisy(Gend(PerceptionEncoder(), 32)),
        "GenD on the Perception Encoder",
        NARROW_PE,
        HALF_STATISTICS,
    ),
    "effort": Case(
        lambda: noisy(Effort()).decompose().eval(),  # pyright: ignore[reportCallIssue]
        "Effort",
        NARROW_CLIP,
        CLIP_STATISTICS,
    ),
    "clip": Case(
        lambda: noisy(DeepfakeBenchClip()), "DeepfakeBench's CLIP", NARROW_CLIP, HALF_STATISTICS
    ),
    "xception": Case(
        lambda: lively(Xception(), 0.6), "a DeepfakeBench detector on Xception", {}, HALF_STATISTICS
    ),
    "efficientnet": Case(
        lambda: lively(EfficientNetB4(), 1.0),
        "a DeepfakeBench detector on EfficientNet-B4",
        {},
        HALF_STATISTICS,
    ),
}


def imported(state: dict[str, Tensor], given: dict[str, Any], format: str = "auto") -> Detector:  # noqa: A002
    """The detector of a published state dict, as `fmsd import` builds it."""
    layout = recognise_layout(list(state), format, SOURCE)
    model = detector(**backbone_settings(state, layout, given, SOURCE))
    copy_weights(convert_detector(state, layout, model.backbone, SOURCE), model.backbone)
    return model.eval()


def published_logit(network: nn.Module, image: Tensor, statistics: Any) -> Tensor:
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in statistics)
    real, fake = network((image - mean) / std).unbind(1)
    return fake - real


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("parallel", [False, True])
@torch.no_grad()
def test_the_logits_are_those_of_the_published_network(name: str, parallel: bool) -> None:
    case = CASES[name]
    network = case.build()
    prefix = "module." if parallel else ""
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    assert recognise_layout(list(state), "auto", SOURCE).about == case.about
    model = imported(state, case.given)
    side = case.given.get("size", 96)  # of which no padding of 380 pixels is symmetric
    image = torch.rand(3, 3, side, side)
    wanted = published_logit(network, image, case.statistics)
    assert wanted.std() > 1e-3 * wanted.abs().max()
    scale = float(wanted.abs().max())
    torch.testing.assert_close(model(image), wanted, atol=1e-5 * max(scale, 1), rtol=0)


@torch.no_grad()
def test_an_efficientnet_padded_otherwise_has_other_logits() -> None:
    network = lively(EfficientNetB4(), 1.0)
    image = torch.rand(2, 3, 96, 96)
    wanted = published_logit(network, image, HALF_STATISTICS)
    found = imported(network.state_dict(), {"padding": None})(image)
    assert (found - wanted).abs().max() > 1e-3 * wanted.abs().max()


def test_the_padding_is_for_an_efficientnet_of_tensorflow() -> None:
    with pytest.raises(InputError, match="padding=deepfakebench is for an EfficientNet"):
        detector("vit_tiny_patch16_224", 224, padding="deepfakebench")
    with pytest.raises(InputError, match=r"backbone\.padding=same is unknown"):
        detector("tf_efficientnet_lite0", 32, padding="same")


@torch.no_grad()
def test_own_statistics_replace_those_of_timm() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    one = detector("tf_efficientnet_lite0", 32, mean=mean, std=std)
    assert one.mean.flatten().tolist() == pytest.approx(mean)
    assert one.std.flatten().tolist() == pytest.approx(std)
    for wrong in ((0.5, 0.5), (0.5, 0.0, 0.5), (0.5, float("nan"), 0.5)):
        with pytest.raises(InputError, match=r"backbone\.std=.* is not three positive numbers"):
            detector("tf_efficientnet_lite0", 32, std=wrong)


MARKS = {
    "backbone.encoder.layers.0.self_attn.q_proj.weight_main": "blocks.0.attn.qkv.weight",
    "backbone.block12.rep.1.conv1.weight": "block12.rep.1.conv1.weight",
    "backbone.efficientnet._conv_stem.weight": "conv_stem.weight",
}
"""timm's name of a layout's mark, where it is not the embedding of patches."""


def test_the_released_files_need_no_backbone() -> None:
    """The shapes are those of the published networks; nothing is allocated."""
    for layout in LAYOUTS:
        for shape, name in layout.models.items():
            state = {layout.mark: torch.empty(shape, device="meta")}
            assert recognise_layout(list(state), "auto", SOURCE) == layout
            settings = backbone_settings(state, layout, {}, SOURCE)
            with torch.device("meta"):
                shapes = tensor_shapes(detector(**settings).backbone.state_dict())
            mark = MARKS.get(layout.mark, "patch_embed.proj.weight")
            stacked = 3 if "qkv" in mark else 1  # Effort's is that of the queries alone
            assert settings["name"] == name
            assert shapes[mark] == (stacked * shape[0], *shape[1:]), layout.about


def test_both_formats_of_clip_are_told_apart() -> None:
    effort = CASES["effort"].build().state_dict()
    assert recognise_layout(list(effort), "auto", SOURCE).format == "effort"
    assert recognise_layout(list(effort), "effort", SOURCE).format == "effort"
    with pytest.raises(InputError, match=r"is a file of Effort, .* give format=effort"):
        recognise_layout(list(effort), "deepfakebench", SOURCE)  # whose statistics are others


@pytest.mark.parametrize(
    ("names", "format", "sentence"),
    [
        (["blocks.0.x"], "auto", r"holds no detector of a known format: .*_conv_stem\.weight"),
        (["blocks.0.x"], "effort", r"of effort: none of these tensors is in it \(Effort: "),
        (["backbone.block12.rep.1.conv1.weight"], "gend", r"; give format=deepfakebench"),
        (["x"], "lnclip", r"format=lnclip is unknown; choose one of auto, gend, effort"),
        (["x"], "forensics_adapter", r"format=forensics_adapter is unknown"),
        (
            ["module.rec_attn_clip.x"],
            "auto",
            "a second network beside CLIP that fmsd does not build",
        ),
    ],
)
def test_what_is_not_known_is_refused(names: list[str], format: str, sentence: str) -> None:  # noqa: A002
    with pytest.raises(InputError, match=sentence):
        recognise_layout(names, format, SOURCE)


def test_a_mark_within_a_longer_name_is_none() -> None:
    for layout in LAYOUTS:
        for name in (f"teacher.{layout.mark}", f"{layout.mark}.x"):
            with pytest.raises(InputError, match="holds no detector"):
                recognise_layout([name], "auto", SOURCE)


def refusal(state: dict[str, Tensor], given: dict[str, Any] = NARROW_CLIP) -> str:
    with pytest.raises(InputError) as refused:
        imported(state, given)
    return str(refused.value)


def test_tensors_that_do_not_fit_are_listed() -> None:
    state = noisy(DeepfakeBenchClip()).state_dict()
    missing, odd = "backbone.post_layernorm.bias", "backbone.post_layernorm.weight"
    del state[missing]
    state[odd] = torch.ones(7)
    state["backbone.extra"] = torch.ones(3)
    text = refusal(state)
    for part in ("missing: norm.bias", "unexpected: extra", "norm.weight (7,) instead of (24,)"):
        assert part in text
    assert "quantised" in refusal(
        {
            name: value.to(torch.int8) if name.endswith("fc1.weight") else value
            for name, value in noisy(DeepfakeBenchClip()).state_dict().items()
        }
    )
    both = noisy(DeepfakeBenchClip()).state_dict()
    assert "holds two networks" in refusal(both | {f"module.{name}": both[name] for name in both})


def test_the_tensors_of_a_head_have_the_same_outputs() -> None:
    state = noisy(DeepfakeBenchClip()).state_dict()
    for odd in (1, 3):
        text = refusal(state | {"head.bias": torch.ones(odd)})
        assert (
            f"end in another head (head.weight (2, 24) instead of (1, 24), head.bias ({odd},)"
            in (text)
        )


def test_names_of_tensors_reach_no_terminal_as_they_are() -> None:
    escape = "\x1b]0;a\x07"
    assert refusal({f"{escape}.x": torch.ones(1)}).isprintable()
    state = noisy(DeepfakeBenchClip()).state_dict()
    assert refusal(state | {f"backbone.{escape}": torch.ones(1)}).isprintable()


@pytest.mark.parametrize("side", [56, 84])
def test_a_grid_that_the_file_tells_wins(side: int) -> None:
    state = CASES["gend pe"].build().state_dict()
    assert imported(state, NARROW_PE | {"size": 56, "img_size": side}).backbone.pos_embed.shape == (
        1,
        37,
        32,
    )


def test_a_network_of_another_width_needs_its_name() -> None:
    state = noisy(DeepfakeBenchClip()).state_dict()
    assert "has the shape (24, 3, 32, 32) instead of (1024, 3, 14, 14)" in refusal(state, {})
    assert "backbone.weights would have no effect" in refusal(state, {"weights": "a.pth"})


def beside(folder: Path, text: str | None) -> bool:
    layout = next(layout for layout in LAYOUTS if layout.format == "gend")
    if text is not None:
        (folder / "config.json").write_text(text)
    return read_gend_head(layout, folder / "model.safetensors").normalised


def test_the_kind_of_gends_head_stands_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert beside(tmp_path, None)
    assert "it is taken for a linear layer on the L2-normalised feature" in caplog.text
    assert beside(tmp_path, '{"model_type": "GenD", "head": "LinearNorm"}')
    assert not beside(tmp_path, '{"model_type": "GenD", "head": "linear"}')
    assert not beside(tmp_path, '{"model_type": "GenD"}')
    for wrong, told in {
        '{"model_type": "clip"}': "model_type='clip' instead of GenD",
        "{}": "model_type=None instead of GenD",
        '{"model_type": "GenD", "head": "mlp"}': "head='mlp' instead of LinearNorm or linear",
        "[]": "",
        "x": "",
    }.items():
        with pytest.raises(InputError, match=rf"config\.json.*{told}"):
            beside(tmp_path, wrong)
    other = next(layout for layout in LAYOUTS if layout.format == "effort")
    assert read_gend_head(other, tmp_path / "model.safetensors") is other


@torch.no_grad()
def test_a_plain_head_of_gend_is_not_normalised() -> None:
    network = noisy(Gend(ClipEncoder(), 24, normalised=False))
    state = network.state_dict()
    layout = recognise_layout(list(state), "gend", SOURCE)._replace(normalised=False)
    model = detector(**backbone_settings(state, layout, NARROW_CLIP, SOURCE))
    copy_weights(convert_detector(state, layout, model.backbone, SOURCE), model.backbone)
    image = torch.rand(2, 3, 96, 96)
    wanted = published_logit(network, image, CLIP_STATISTICS)
    torch.testing.assert_close(model.eval()(image), wanted, atol=1e-5, rtol=1e-5)
