"""Folding: a run's chosen weights as a plain timm model."""

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from fmsd.atomic import atomic
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.report.run import Run
from fmsd.tasks.evaluate import folded

log = logging.getLogger(__name__)


def fold(run: Run, detector: Callable[[], Detector], out: Path) -> None:
    """Writes a run's detector as dense weights in timm's keys; `backbone.weights=OUT` or timm itself loads them.

    Args:
        detector: makes the detector that the run began with.

    Raises:
        InputError: another suffix than safetensors, a run without adapter, or another base.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"out={out} is no name of a safetensors file", "give out=FILE.safetensors")
    model = folded(run, detector)
    state = {key: value.detach().cpu().contiguous() for key, value in model.backbone.state_dict().items()}
    with atomic(out) as partial:
        save_file(state, partial, metadata={"mean": str(model.mean.flatten().tolist()), "std": str(model.std.flatten().tolist())})
    print(f"{out}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} numbers")
