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

from torch import Tensor

from fmsd.console import print_place, print_table
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.inference.run_facts import describe
from fmsd.models.detector import Detector
from fmsd.models.imported import Layout, convert_detector, copy_weights
from fmsd.paths import file_digest
from fmsd.peft import adapter
from fmsd.redaction import redact_words
from fmsd.runs.folder import Run, owning_run
from fmsd.runs.provenance import provenance
from fmsd.state import check_finite

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""What a record says of the training of a published detector."""

CROPS = CropSettings()
"""The crops that the published detectors were trained on: aligned, with a margin of 1.3.

DeepfakeBench's have 256 pixels, GenD's the face's own size.
"""


def import_detector(
    weights: Path,
    state: Mapping[str, Tensor],
    layout: Layout,
    detector: Callable[[], Detector],
    out: Path,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    choices: Mapping[str, Any],
) -> Run:
    """Writes the folder of a run with a published detector: all at once, or nothing.

    Args:
        weights: the published file.
        state: its tensors.
        layout: how they are named.
        detector: builds the network that they belong to.
        out: the folder of the run.
        config: text of the run's configuration.
        choices: the chosen options by group.

    Raises:
        InputError: the folder exists, or the tensors do not fit the network.
    """
    start = time.monotonic()
    check_new(out)
    model = detector()
    values = convert_detector(state, layout, model.backbone, str(weights))
    check_finite(values.items(), str(weights))
    copy_weights(values, model.backbone)
    model.requires_grad_(True)  # an adapter has what is trainable: here everything
    digest = file_digest(weights)
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
                "overrides": redact_words(overrides),
                "choices": dict(choices),
                "seed": 0,
                "seconds": round(time.monotonic() - start, 1),
            }
        )
    print_import(about, model, parameters)
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
            "train": {UNKNOWN: ""},
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

    Raises:
        InputError: `out` has come into being meanwhile.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name[:40]}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        yield partial
        check_new(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def print_import(about: Mapping[str, Any], model: Detector, parameters: int) -> None:
    """Prints what was recognised, and what is not known of it."""
    mean, std = (
        ", ".join(f"{value:.4g}" for value in each.flatten().tolist())
        for each in (model.mean, model.std)
    )
    facts = {
        "detector": about["detector"],
        "format": about["format"],
        "parameters": f"{parameters:,}",
        "mean": mean,
        "std": std,
        "face crops": describe(CROPS),
        "SHA-256": about["sha256"],
    }
    print_table(
        f"Imported from {about['file']}",
        ["", ""],
        [[name, text] for name, text in facts.items()],
        "Its training data are unknown: so is whether test frames are among them. It has no "
        "validation data: no thresholds, no calibration, and a verdict only at=NUMBER.",
        text_columns=("",),
        name="imported",
        records=[{**about, "parameters": parameters}],
    )
