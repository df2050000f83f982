"""Detectors as they begin a training and as a run left them. Needs no Lightning."""

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from timm.layers.config import set_fused_attn, use_fused_attn

from fmsd.models.detector import Detector
from fmsd.peft import adapter
from fmsd.peft.inject import fold_layers
from fmsd.runs.folder import Run


def load_folded_detector(run: Run, detector: Callable[[], Detector]) -> Detector:
    """The detector of a run: its base with the adapter folded in.

    It is a plain timm model, but for modules that do not fold, see
    `fmsd.peft.inject.UnfoldableModule`.

    Args:
        detector: builds the base that the run began with.

    Raises:
        InputError: the run has no adapter, or `detector` builds another base.
    """
    with seeded(run.record()["seed"]):  # a backbone without pretrained weights follows from it
        model = detector()
    adapter.load(model, run.folder)
    fold_layers(model.backbone)
    return model


def build_detector(
    detector: Callable[[], Detector], device: torch.device, precision: str
) -> Detector:
    """Builds a detector, without torch's fused attention for bfloat16 on the CPU.

    Its backward pass is slow there (benchmarks/attention.py). Training and tests build the detector
    by this function, so that both give the same scores.

    Args:
        device: where it is trained or tested.
        precision: Lightning's name of the precision that it is trained or tested in.
    """
    before = use_fused_attn(), use_fused_attn(experimental=True)
    if device.type == "cpu" and precision == "bf16-mixed":
        set_fused_attn(False)
    try:
        return detector()
    finally:
        set_fused_attn(*before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python, numpy and torch on the CPU inside the block; restores their states after it."""
    # numpy's global generator is what timm's initialisation would draw from
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
