"""Folding: a run's chosen weights as a plain timm model."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from fmsd.atomic import atomic
from fmsd.engine.detectors import load_folded_detector
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.models.head import head_kind
from fmsd.ownership import check_replaceable
from fmsd.peft import adapter
from fmsd.peft.layer_kinds import check_foldable
from fmsd.runs.folder import Run, owning_run
from fmsd.runs.integrity import DETECTOR_FILES

log = logging.getLogger(__name__)

WRITER = "fmsd fold"
"""The writer that a folded file names in its metadata."""

OWN_SETTINGS = (
    "_target_", "_partial_", "name", "size", "pretrained", "weights", "normalise_head",
    "cosine_head", "mean", "std", "padding",
)  # fmt: skip
"""The settings of a backbone that timm does not take as arguments, its name among them."""


def fold(
    run: Run,
    detector: Callable[[], Detector],
    out: Path,
    backbone: Mapping[str, Any],
) -> None:
    """Writes a run's detector as dense weights in timm's keys.

    The metadata of the file hold what `fmsd.load` needs beside them.

    `backbone.weights=OUT` or timm itself loads them. timm has no head that normalises its
    feature: it loads such a file without its head, and `backbone.weights=OUT head.normalise=KIND`
    all of it.

    Args:
        detector: builds the detector that the run began with.
        out: FILE.safetensors.
        backbone: the settings of the backbone.

    Raises:
        InputError: `out` has another suffix, lies among a run's own files or is a file that `fold`
            did not write; or the run has no adapter, one that its record does not know, one with
            modules that do not fold, or another base.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"out={out} is no name of a safetensors file", "give out=FILE.safetensors")
    if place := owning_run(out):
        raise InputError(
            f"out={out} lies among the files of the run in {place}",
            "give another out=FILE.safetensors",
        )
    check_replaceable([out], out, _is_folded, WRITER, "give another out=FILE.safetensors")
    run.check(*DETECTOR_FILES)
    check_foldable(adapter.read_description(run.folder)["layers"], run.folder / adapter.DESCRIPTION)
    model = load_folded_detector(run, detector)
    state = {
        key: value.detach().cpu().contiguous() for key, value in model.backbone.state_dict().items()
    }
    from fmsd.inference.run_facts import run_facts  # noqa: PLC0415  imports OpenCV

    metadata = {
        "written_by": WRITER,
        "mean": str(model.mean.flatten().tolist()),
        "std": str(model.std.flatten().tolist()),
        "backbone": json.dumps({**backbone, "pretrained": False, "weights": None}),
        "facts": json.dumps(run_facts(run, warn=False).to_json()),
    }
    with atomic(out) as partial:
        save_file(state, partial, metadata=metadata)
    parameters = sum(value.numel() for value in state.values())
    kind = head_kind(state, adapter.head_name(model))
    print(f"{out}: {len(state)} tensors, {parameters:,} parameters")
    print(f"Its network in timm: {timm_call(backbone, classes=0 if kind else 1)}")
    if padding := backbone.get("padding"):
        log.warning(
            "Its network pads its convolutions otherwise than timm does: timm's model gives other "
            "scores with these weights. fmsd pads them as the run did with backbone.padding=%s.",
            padding,
        )
    if kind:
        log.warning(
            "Its head normalises the feature, which no head of timm does: fmsd loads it with "
            "head.normalise=%s; docs/concepts/head.md has the lines for timm.",
            str(kind).lower(),
        )


def timm_call(backbone: Mapping[str, Any], classes: int) -> str:
    """The line of Python that builds a backbone in timm.

    Args:
        backbone: its settings.
        classes: number of outputs; 0 for the feature.
    """
    given = {key: value for key, value in backbone.items() if key not in OWN_SETTINGS}
    arguments = "".join(f", {key}={value!r}" for key, value in given.items() if value is not None)
    return f"timm.create_model({backbone['name']!r}, num_classes={classes}{arguments})"


def _is_folded(path: Path) -> bool:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("written_by") == WRITER
