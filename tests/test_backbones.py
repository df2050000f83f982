"""The configured backbones: every method takes each of them, and reaches every trainable tensor."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from timm.data.config import resolve_model_data_config
from torch import nn
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.models.attribution import default_method
from fmsd.models.configured import NOT_TIMMS, backbone_configs
from fmsd.models.detector import detector
from fmsd.models.features import features_and_logits
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.lora import lora
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from tests.conftest import ROOT
from tests.test_families import LABEL, Family, check_gradients, pretrained, stir

PRESETS = backbone_configs()

PAGE = (ROOT / "docs" / "concepts" / "backbones.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()
    )
    if cells[0].startswith("`") and cells[0].strip("`") in PRESETS
}
"""The table of the documentation, by preset."""

MEANS = {"CLIP": 0.4815, "ImageNet": 0.485, "0.5": 0.5}


class Narrow(NamedTuple):
    """The real code of a preset with few channels and blocks, and matrices to adapt."""

    patterns: tuple[str, ...]
    size: int = 28
    arguments: Mapping[str, Any] = MappingProxyType({})


VIT = {"embed_dim": 24, "depth": 1, "num_heads": 2}
VIT14 = Narrow(("attention",), 28, VIT)
VIT16 = Narrow(("attention",), 32, VIT)
NARROW = {
    "clip_vit_b16": VIT16,
    "clip_vit_l14": VIT14,
    "clip_vit_l14_336": VIT14,
    "convnext_b_clip": Narrow(("mlp",), 32, {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}),
    "demo_vit": Narrow(("attention",), 32, VIT),
    "dinov2_l14": VIT14,
    "dinov2_l14_reg": VIT14,
    "dinov2_s14": VIT14,
    "dinov3_b16": VIT16,
    "dinov3_l16": VIT16,
    "efficientnet_b4": Narrow(("blocks.[0-1].*",), 32),
    "efficientnet_lite0": Narrow(("blocks.[0-1].*",), 32),
    "eva02_l14": VIT14,
    "pe_core_l14": VIT14,
    "pe_core_l14_336": VIT14,
    "sam2_hiera_tiny": Narrow(
        ("attention",),
        64,
        {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "global_att_blocks": ()},
    ),
    "siglip2_b16": VIT16,
    "vit_tiny": VIT16,
    "xception": Narrow(("block1.*",), 64),
}
SUBSPACES = {"directions": 1, "penalties": {}}
METHODS = {
    "probe": lambda model, _: probe(model),
    "norm": lambda model, _: norm(model),
    "bitfit": lambda model, _: bitfit(model),
    "full": lambda model, _: full(model),
    "lora": lambda model, patterns: lora(model, patterns=patterns, rank=2, alpha=4.0),
    "effort": lambda model, patterns: fmsd(
        model, patterns=patterns, subspaces=1, working_scale=False, **SUBSPACES
    ),
    "fmsd": lambda model, patterns: fmsd(model, patterns=patterns, subspaces=2, **SUBSPACES),
}

every_preset = pytest.mark.parametrize("preset", PRESETS)


def timm_arguments(preset: str, size: int) -> dict[str, Any]:
    """The arguments of a preset for timm, at an input size."""
    return {
        key: size if value == "${.size}" else value
        for key, value in PRESETS[preset].items()
        if key not in NOT_TIMMS
    }


def trained_count(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def test_every_preset_is_in_the_table_and_has_a_narrow_variant() -> None:
    assert ROWS.keys() == PRESETS.keys() == NARROW.keys()


@every_preset
def test_the_table_has_each_networks_parameters_and_those_that_methods_train(preset: str) -> None:
    settings, row = PRESETS[preset], ROWS[preset]
    with torch.device("meta"):
        model = detector(
            settings["name"], settings["size"], **timm_arguments(preset, settings["size"])
        )
    mean = resolve_model_data_config(model.backbone)["mean"]
    assert str(settings["size"]) == row[1]
    assert mean[0] == pytest.approx(MEANS[row[2]], abs=1e-3)
    counts = [sum(each.numel() for each in model.parameters())]
    for method in (probe, norm, bitfit):
        method(model)
        counts.append(trained_count(model))
    if row[7] != "-":
        with torch.device("meta"):
            lora(model, patterns=["attention"], rank=4, alpha=8)
        counts.append(trained_count(model))
    else:
        with pytest.raises(InputError, match=r"'attention' matches no matrix"):
            lora(model, patterns=["attention"], rank=4, alpha=8)
    assert [f"{count:,}" for count in counts] == [cell for cell in row[3:] if cell != "-"]
    assert isinstance(model.head(), nn.Linear)
    assert model.head().out_features == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@every_preset
def test_every_method_reaches_each_of_its_tensors(preset: str, method: str) -> None:
    narrow = NARROW[preset]
    family = Family(
        PRESETS[preset]["name"],
        narrow.patterns,
        set(),
        {**timm_arguments(preset, narrow.size), **narrow.arguments},
        narrow.size,
    )
    model, _, image = pretrained(family)
    METHODS[method](model, narrow.patterns)
    stir(model)
    # squares, as the gradient of a large logit's cross-entropy is rounded to zero
    (model.train()(image) - LABEL).square().sum().backward()
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    assert len(trained) > 2 * (method != "probe")
    check_gradients(model, trained)
    if method == "probe":
        feature, logit = features_and_logits(model.eval(), image)
        head = model.head()
        torch.testing.assert_close(
            functional.linear(feature, head.weight, head.bias).squeeze(1),  # pyright: ignore
            logit,
            rtol=1e-4,
            atol=1e-4,
        )


def test_attention_pooling_is_explained_by_gradients_and_a_class_token_by_rollout() -> None:
    for preset, how in (
        ("pe_core_l14", "gradcam"),
        ("siglip2_b16", "gradcam"),
        ("dinov3_b16", "rollout"),
        ("eva02_l14", "rollout"),
    ):
        narrow = NARROW[preset]
        model = detector(
            PRESETS[preset]["name"],
            narrow.size,
            **timm_arguments(preset, narrow.size) | dict(narrow.arguments),
        )
        assert default_method(model) == how


def test_a_pretraining_tag_that_this_timm_does_not_know_is_named() -> None:
    for pretrained_too in (False, True):
        with pytest.raises(
            InputError,
            match=re.escape("has no weights 'lvd' of vit_base_patch16_dinov3; update timm, or ")
            + "choose one of: lvd1689m",
        ):
            detector("vit_base_patch16_dinov3.lvd", 224, pretrained=pretrained_too)
