"""Norm tuning: only the scales and shifts of normalisation layers are trained.

Zhao et al., ICLR 2024, arXiv 2312.11420; for deepfake detection LNCLIP, arXiv 2503.19683.
"""

from timm.layers import norm as timm_norm
from timm.layers.evo_norm import (
    EvoNorm2dB0,
    EvoNorm2dB1,
    EvoNorm2dB2,
    EvoNorm2dS0,
    EvoNorm2dS1,
    EvoNorm2dS2,
)
from timm.layers.filter_response_norm import FilterResponseNormAct2d, FilterResponseNormTlu2d
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches
from fmsd.peft.probe import probe

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,  # batch and instance norms
    timm_norm.RmsNorm,
    timm_norm.RmsNormFp32,
    timm_norm.RmsNorm2d,
    timm_norm.RmsNorm2dFp32,
    timm_norm.SimpleNorm,
    timm_norm.SimpleNormFp32,
    timm_norm.SimpleNorm2d,
    timm_norm.SimpleNorm2dFp32,
    EvoNorm2dB0,
    EvoNorm2dB1,
    EvoNorm2dB2,
    EvoNorm2dS0,
    EvoNorm2dS1,
    EvoNorm2dS2,
    FilterResponseNormAct2d,
    FilterResponseNormTlu2d,
    GlobalResponseNorm,
)
"""Base classes of normalisation layers; timm's own do not derive from torch's."""


def norm(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Makes the affine parameters of every normalisation layer and the head trainable.

    Raises:
        InputError: the backbone has no normalisation layer with parameters.
    """
    probe(detector)
    layers = [module for module in detector.backbone.modules() if isinstance(module, NORMS)]
    chosen = [
        affine
        for layer in layers
        for name in ("weight", "bias")
        if (affine := getattr(layer, name, None)) is not None
    ]
    if not chosen:
        raise InputError(
            f"{type(detector.backbone).__name__} has no normalisation layer with parameters, so "
            "method=norm has nothing to train",
            "choose another method, e.g. method=lora",
        )
    for affine in chosen:
        affine.requires_grad_(True)
    return Adaptation()
