"""Small adapted networks of every method, trained, saved and loaded for the tests of folding."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.folded import FoldedWeights
from fmsd.peft.full import full
from fmsd.peft.inject import fold_layers
from fmsd.peft.lora import lora
from fmsd.peft.lora_xs import lora_xs
from fmsd.peft.masm import masm
from fmsd.peft.method import Method
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from fmsd.peft.svf import svf
from fmsd.state import tensor_shapes
from tests.conftest import METHODS
from tests.test_families import CONVNEXT, RESNET, SWIN, VIT

Make = Callable[..., Detector]

NETWORKS: dict[str, Make] = {
    "vit": functools.partial(detector, "vit_base_patch16_224", 32, **VIT),
    "swin": functools.partial(detector, "swin_tiny_patch4_window7_224", 32, **SWIN),
    "convnext": functools.partial(detector, "convnext_tiny", 32, **CONVNEXT),
    # strided pointwise convolutions, batch norms
    "resnet": functools.partial(detector, "resnet50", 32, **RESNET),
    # pointwise and depthwise convolutions with and without a bias
    "efficientnet": functools.partial(detector, "test_efficientnet", 32),
    "siglip": functools.partial(detector, "vit_base_patch16_siglip_224", 32, **VIT),  # fused k, v
    # biases of q and v apart from their layer
    "eva": functools.partial(detector, "eva02_base_patch14_224", 32, **VIT),
}

BOTH = ["attention", "mlp"]

TWO = {"subspaces": 2, "directions": 2}

PENALTIES = {"orthogonality": 1.0, "spectral": 1.0}

ADAPTED: dict[str, tuple[str, Method]] = {
    **{name: ("vit", method) for name, method in METHODS.items()},
    "dora": ("vit", functools.partial(lora, patterns=BOTH, rank=2, alpha=4.0, dora=True)),
    "pissa": ("vit", functools.partial(lora, patterns=BOTH, rank=2, alpha=4.0, init="pissa")),
    "svf": ("vit", functools.partial(svf, patterns=BOTH)),
    "lora_xs": ("vit", functools.partial(lora_xs, patterns=BOTH, rank=3)),
    "norm": ("vit", norm),
    "bitfit": ("vit", bitfit),
    "probe": ("vit", probe),
    "effort": ("vit", functools.partial(fmsd, patterns=["attention"], subspaces=1, directions=1)),
    "hard": ("vit", functools.partial(fmsd, patterns=BOTH, **TWO, constraint="hard")),
    "hard masm": (
        "vit",
        functools.partial(
            masm, patterns=BOTH, **TWO, every=2, momentum=0.9, fraction=0.5, constraint="hard"
        ),
    ),
    "contiguous": (
        "vit",
        functools.partial(fmsd, patterns=BOTH, **TWO, allotment="contiguous", penalties=PENALTIES),
    ),
    "top": ("vit", functools.partial(fmsd, patterns=["mlp"], **TWO, split="top")),
    "random": ("vit", functools.partial(fmsd, patterns=["mlp"], **TWO, split="random")),
    "swin": ("swin", functools.partial(fmsd, patterns=BOTH, **TWO)),
    "convnext": ("convnext", functools.partial(lora, patterns=["mlp"], rank=2, alpha=4.0)),
    "fused k, v": ("siglip", functools.partial(fmsd, patterns=["attention"], **TWO)),
    "q, k, v apart": ("eva", functools.partial(lora, patterns=BOTH, rank=2, alpha=4.0)),
    "biases apart": ("eva", bitfit),
    "pointwise fmsd": (
        "efficientnet",
        functools.partial(fmsd, patterns=["pointwise"], subspaces=1, directions=2),
    ),
    "pointwise masm": (
        "resnet",
        functools.partial(masm, patterns=["pointwise"], **TWO, every=2, momentum=0.9, fraction=0.5),
    ),
    "pointwise lora": (
        "efficientnet",
        functools.partial(lora, patterns=["pointwise"], rank=2, alpha=4.0),
    ),
    "pointwise dora": (
        "resnet",
        functools.partial(lora, patterns=["pointwise"], rank=2, alpha=4.0, dora=True),
    ),
    "pointwise milora": (
        "resnet",
        functools.partial(
            lora, patterns=["pointwise"], rank=2, alpha=4.0, dora=True, init="milora"
        ),
    ),
    "pointwise svf": ("resnet", functools.partial(svf, patterns=["pointwise"])),
    "pointwise lora_xs": ("resnet", functools.partial(lora_xs, patterns=["pointwise"], rank=3)),
    "fused k, v of svf": ("siglip", functools.partial(svf, patterns=["attention"])),
    "fused k, v of lora_xs": ("siglip", functools.partial(lora_xs, patterns=BOTH, rank=3)),
    "batch norms": ("resnet", norm),
    "biases of batch norms": ("efficientnet", bitfit),
    "full cnn": ("efficientnet", full),
}

every_method = pytest.mark.parametrize("name", ADAPTED)


class Case(NamedTuple):
    """A specialist on disk, its base, and the weights that loading and folding give."""

    folder: Path
    make: Make
    base: dict[str, Tensor]
    hash: str
    folded: dict[str, Tensor]

    def open(self, base: Mapping[str, Tensor] | None = None) -> FoldedWeights:
        return FoldedWeights(
            self.folder, self.base if base is None else base, self.hash, meta_detector(self.make)
        )


def weights(make: Make) -> dict[str, Tensor]:
    """The same random weights every time; no tensor is constant."""
    torch.manual_seed(7)
    state = make().backbone.state_dict()
    return {
        key: value + 0.1 * torch.rand_like(value) if value.is_floating_point() else value + 1
        for key, value in state.items()
    }


def begin(make: Make, base: Mapping[str, Tensor]) -> Detector:
    model = make()
    model.backbone.load_state_dict({key: value.clone() for key, value in base.items()})
    return model


@torch.no_grad()
def stir(model: Detector) -> None:
    """Moves trainable parameters and the statistics of trained norms, as training does."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and any(
            parameter.requires_grad for parameter in module.parameters()
        ):
            cast(Tensor, module.running_mean).add_(torch.randn(module.num_features))
            cast(Tensor, module.running_var).mul_(1 + torch.rand(module.num_features))
            cast(Tensor, module.num_batches_tracked).add_(3)


def train(folder: Path, make: Make, method: Method, base: dict[str, Tensor] | None = None) -> Case:
    base = weights(make) if base is None else base
    model = begin(make, base)
    found = adapter.fingerprint(model)
    method(model)
    stir(model)
    adapter.save(model, folder, {"name": "a network", "hash": found}, {})
    return Case(folder, make, base, found, merged(folder, make, base))


def merged(folder: Path, make: Make, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What loading an adapter and folding it gives."""
    model = begin(make, base)
    adapter.load(model, folder)
    fold_layers(model.backbone)
    return model.backbone.state_dict()


def check_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Both ways do the same arithmetic on the same numbers, so they agree to the bit."""
    assert list(found) == list(expected)
    assert tensor_shapes(found) == tensor_shapes(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


class Attention(nn.Module):
    """A backbone with torch's own attention, and a buffer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.embedding = nn.Embedding(4, 8)
        self.turned = nn.ConvTranspose2d(8, 8, 2)
        self.volume = nn.Conv3d(8, 8, 2)
        self.fc = nn.Linear(8, 1)
        self.register_buffer("index", torch.arange(4))
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("cache", torch.ones(4), persistent=False)

    def get_classifier(self) -> nn.Module:
        return self.fc
