"""fmsd import: a published detector becomes a run, which every verb about runs takes."""

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmsd.console import print_place, print_table
from fmsd.errors import InputError, reason
from fmsd.inference.crop_scoring import CropSettings
from fmsd.inference.run_facts import describe
from fmsd.machine_errors import memory_error
from fmsd.models.detector import Detector
from fmsd.models.imported import convert_detector, copy_weights
from fmsd.models.layouts import Layout
from fmsd.paths import file_digest
from fmsd.peft import adapter
from fmsd.quoting import printable
from fmsd.redaction import redact_words
from fmsd.runs.folder import Run, owning_run
from fmsd.runs.provenance import provenance
from fmsd.state import check_finite

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""What a record says of the training of a published detector."""

TRACELESS = (
    "The number of attention heads and the activation leave no trace in the tensors: they are "
    "those of the network above, and a file of a network with others would get wrong scores "
    "without an error."
)

UNSEEN = (
    "Its training data are unknown: so is whether test frames are among them. It has no validation "
    "data: no thresholds, no calibration, and a verdict only at=NUMBER."
)

CROPS = CropSettings()
"""The crops that the published detectors were trained on: aligned, with a margin of 1.3.

DeepfakeBench's have 256 pixels, GenD's the face's own size.
"""


def import_detector(
    weights: Path,
    digest: str,
    label: str | None,
    state: Mapping[str, Tensor],
    layout: Layout,
    detector: Callable[[], Detector],
    backbone: Mapping[str, Any],
    out: Path,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    choices: Mapping[str, Any],
) -> Run:
    """Writes the folder of a run with a published detector: all at once, or nothing.

    Args:
        weights: the published file.
        digest: its SHA-256 before it was read.
        label: the name of the row in reports; None for that of the layout.
        state: its tensors.
        layout: how they are named.
        detector: builds the network that they belong to.
        backbone: the settings of this network.
        out: the folder of the run.
        config: text of the run's configuration.
        choices: the chosen options by group.

    Raises:
        InputError: the folder exists, the tensors do not fit the network, the network does not
            compute a logit, or the file was changed meanwhile.
    """
    start = time.monotonic()
    check_new(out)
    model = detector()
    values = convert_detector(state, layout, model.backbone, str(weights))
    check_finite(values.items(), str(weights))
    copy_weights(values, model.backbone)
    check_forward(model, backbone["size"], str(weights))
    if file_digest(weights) != digest:
        raise InputError(f"{weights} was changed while it was read", "import it again")
    model.requires_grad_(True)  # an adapter has what is trainable: here everything
    about = {
        "format": layout.format,
        "detector": layout.about,
        "file": weights.name,
        "sha256": digest,
        "crops": asdict(CROPS),
    }
    parameters = sum(each.numel() for each in model.parameters())
    with whole_folder(out) as folder:
        run = Run(folder)
        run.write("config.yaml", config)
        adapter.save(model, folder, None, {"method": {"name": "imported"}})
        run.finish(
            provenance(command)
            | imported_record(about, parameters)
            | {
                "label": label,
                "overrides": redact_words(overrides),
                "choices": dict(choices),
                "seed": 0,
                "seconds": round(time.monotonic() - start, 1),
            }
        )
    print_import(about, model, backbone, layout.trap)
    print_place(f"The imported run lies in {out}", out)
    return Run(out)


def imported_record(about: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """The entries of `run.json` that do not follow from the command line alone.

    Args:
        about: format and name of the detector, name and digest of its file, and its crops.
        parameters: their number.
    """
    return {
        "imported": dict(about),
        "selection": UNKNOWN,
        "monitor": None,
        "monitored": None,
        "thresholds": None,
        "origin": {
            "selection": UNKNOWN,
            "augment": UNKNOWN,
            "train": {UNKNOWN: about["sha256"]},
            "left_out": None,
        },
        "stamps": {},
        "overlap": {},
        "epoch": None,
        "trainable": 0,
        "parameters": parameters,
        "manifests": {"test": {}},
        "skipped": [],
    }


@torch.no_grad()
def check_forward(model: Detector, size: int, source: str) -> None:
    """Checks that the network computes a logit of an image.

    Args:
        size: height and width of its input in pixels.
        source: the file, for messages.

    Raises:
        InputError: it does not.
    """
    try:
        logit = model.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # of any layer
        raise memory_error(error) or InputError(
            f"The network of {source} cannot compute an image of {size} x {size} pixels "
            f"({printable(reason(error))})",
            "correct backbone.size=PIXELS and what else of backbone was given",
        ) from error
    if logit.shape != (1,) or not logit.isfinite().all():
        raise InputError(
            f"The network of {source} does not compute one finite logit of an image",
            "choose the backbone that its tensors belong to",
        )


def check_new(out: Path) -> None:
    """Checks that the folder of a new run does not exist, and is no part of another run.

    Raises:
        InputError: it does, or is.
    """
    if os.path.lexists(out):
        raise InputError(f"out={out} exists", "give another folder, or remove it")
    if place := owning_run(out):
        raise InputError(
            f"out={out} lies among the files of the run in {place}", "give another folder"
        )


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a folder beside `out`, which becomes `out` when the block succeeds.

    Otherwise neither it nor a parent that was made for it remains.

    Raises:
        InputError: `out` has come into being meanwhile.
    """
    parents = [parent for parent in out.parents if not parent.exists()]
    partial = out.with_name(f".{out.name[:40]}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        check_new(out)
        try:
            partial.rename(out)
        except OSError as error:
            raise InputError(
                f"out={out} cannot be made ({reason(error)})", "give another folder"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in parents:
            with contextlib.suppress(OSError):  # it holds the run, or something else
                parent.rmdir()


def print_import(
    about: Mapping[str, Any], model: Detector, backbone: Mapping[str, Any], trap: str
) -> None:
    """Prints what was recognised, and what is not known of it.

    Args:
        backbone: the settings of the network.
        trap: what the tensors do not tell of the layout.
    """
    mean, std = (
        ", ".join(f"{value:.4g}" for value in each.flatten().tolist())
        for each in (model.mean, model.std)
    )
    parameters = sum(each.numel() for each in model.parameters())
    heads, activations = traceless(model)
    facts = {
        "detector": about["detector"],
        "format": about["format"],
        "network": str(backbone["name"]),
        "attention heads": "none" if heads is None else str(heads),
        "activation": ", ".join(activations),
        "parameters": f"{parameters:,}",
        "input": f"{backbone['size']} x {backbone['size']} pixels",
        "mean": mean,
        "std": std,
        "face crops": describe(CROPS),
        "SHA-256": about["sha256"],
    }
    print_table(
        f"Imported from {printable(about['file'])}",
        ["", ""],
        [[name, text] for name, text in facts.items()],
        f"{trap} {TRACELESS} {UNSEEN}".strip(),
        text_columns=("",),
        name="imported",
        records=[{**about, "parameters": parameters, "heads": heads, "activations": activations}],
    )


def traceless(model: Detector) -> tuple[int | None, list[str]]:
    """What of a network its tensors do not tell: attention heads of a block, and activations.

    The number of heads is None for a network without attention.
    """
    heads = [getattr(each, "num_heads", None) for each in model.modules()]
    activations = {
        type(each).__name__
        for each in model.modules()
        if "activations" in type(each).__module__.split(".")[-1]
        or type(each) in (nn.GELU, nn.ReLU, nn.SiLU)
    }
    return next((each for each in heads if isinstance(each, int)), None), sorted(activations)
