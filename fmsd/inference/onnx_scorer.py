"""A detector in an ONNX file, as `fmsd export` writes it, run by ONNX Runtime. Needs no torch."""

import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fmsd.data.loading.resizing import resize
from fmsd.data.processes import available_cores
from fmsd.errors import InputError, reason
from fmsd.inference.crop_scoring import Crops, CropScores, ScoreError
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.metadata import (
    DISTANCE,
    INPUT,
    KEY,
    LOGIT,
    PROBABILITY,
    REMEDY,
    Metadata,
    read_metadata,
)
from fmsd.magic_numbers import ONNX, recognise
from fmsd.metrics.score_meaning import to_probability

log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""Where a network is run, by ONNX Runtime's names."""

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name of the folder in which it looks for weights outside of a file."""

PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
"""The beginning of ONNX Runtime's messages."""

LARGEST = 2**31
"""Bytes that an ONNX file cannot exceed: it is one message of Google's protocol buffers."""


class OnnxScorer:
    """Scores face crops with an ONNX file that `fmsd export` wrote.

    Args:
        path: of the file.
        device: `cpu`, `cuda` or `cuda:1`; None for a GPU if there is one.

    Raises:
        InputError: ONNX Runtime is missing or does not run on the device, or the file cannot be
            read, is damaged, or was not written by `fmsd export`.
    """

    def __init__(self, path: Path, device: str | None = None) -> None:
        self.session = open_session(path, device)
        self.metadata = read_metadata(
            self.session.get_modelmeta().custom_metadata_map.get(KEY), path
        )
        self.path = path
        check_ends(self.session, self.metadata, path)

    @property
    def facts(self) -> DetectorFacts:
        """What is known of the detector beside its weights."""
        return replace(self.metadata.facts, weights=self.metadata.weights)

    @property
    def unusual_limit(self) -> float | None:
        """The distance of features from which a face is unusual; None where unknown."""
        return self.metadata.unusual_limit

    def run(self, images: UInt8[ndarray, "batch 3 size size"]) -> dict[str, ndarray]:
        """The outputs of the network by name.

        Args:
            images: of the size that the network takes.

        Raises:
            ScoreError: the network cannot be run.
        """
        names = [output.name for output in self.session.get_outputs()]
        try:
            outputs = self.session.run(names, {INPUT: images})
        except Exception as error:  # ONNX Runtime's own, which have no common class
            raise ScoreError(
                f"{self.path} cannot be run ({runtime_reason(error)})", REMEDY
            ) from error
        return dict(zip(names, outputs, strict=True))

    def __call__(self, crops: Crops) -> CropScores:
        """The scores of RGB crops of any one size.

        Raises:
            ScoreError: the network cannot be run, or returns something else than one logit a crop.
        """
        resized = np.stack([resize(crop, self.facts.size) for crop in crops])
        outputs = self.run(np.ascontiguousarray(resized.transpose(0, 3, 1, 2)))
        logit = outputs[LOGIT].astype(np.float64)
        if logit.shape != (len(crops),):
            raise ScoreError(f"{self.path} is damaged: it has not one logit for each crop", REMEDY)
        unknown = np.full(len(crops), np.nan)
        return CropScores(to_probability(logit), outputs.get(DISTANCE, unknown).astype(np.float64))


def open_session(path: Path, device: str | None) -> Any:
    """The session of an ONNX file in ONNX Runtime.

    Weights outside of the file are not read.

    Args:
        device: see `OnnxScorer`.

    Raises:
        InputError: ONNX Runtime is missing or does not run on the device, or the file cannot be
            read or is damaged.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError(
            f"{path} needs the package onnxruntime", "install it with: pip install 'fmsd[export]'"
        )
    import onnxruntime  # noqa: PLC0415  of an extra

    content = read_model(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry(WEIGHTS_FOLDER, str(path))  # a file, in which no file lies
    providers = choose_providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:
        raise InputError(
            f"{path} is no ONNX file that can be run ({runtime_reason(error)})", REMEDY
        ) from error
    check_provider(session.get_providers()[0], providers, device)
    return session


def check_provider(
    used: str, wanted: Sequence[str | tuple[str, dict[str, str]]], device: str | None
) -> None:
    """Compares where ONNX Runtime runs a network with where it should: it falls back silently.

    Args:
        wanted: of `choose_providers`.
        device: see `OnnxScorer`.

    Raises:
        InputError: it does not run on the device that was asked for.
    """
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    if used == first:
        return
    if device is not None:
        raise InputError(
            f"device={device}: ONNX Runtime cannot use it here, as CUDA or the device is missing",
            "give device=cpu",
        )
    log.warning(
        "ONNX Runtime cannot use a GPU here, although it was installed for GPUs: the CPU is used."
    )


def choose_providers(
    device: str | None, available: Sequence[str]
) -> list[str | tuple[str, dict[str, str]]]:
    """Where ONNX Runtime runs a network, the first choice first.

    Args:
        device: see `OnnxScorer`.
        available: what the installed ONNX Runtime has.

    Raises:
        InputError: it does not run on the device.
    """
    kind, _, number = (device or "").partition(":")
    if kind == "cpu" or (not kind and CUDA not in available):
        return [CPU]
    if kind == "mps" or CUDA not in available:
        raise InputError(
            f"device={device}: the installed ONNX Runtime does not run there",
            "give device=cpu" + ("" if kind == "mps" else ", or install onnxruntime-gpu"),
        )
    return [(CUDA, {"device_id": number or "0"}), CPU]


def runtime_reason(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, without its beginning."""
    return PREFIX.sub("", reason(error), count=1).rstrip(".")


def read_model(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        InputError: it cannot be read, is too large, or its first bytes show that it is something
            else.
    """
    try:
        fault = recognise(path)
        size = path.stat().st_size
        content = path.read_bytes() if fault in (None, ONNX) and size < LARGEST else b""
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error})", "correct run=FILE.onnx"
        ) from error
    if fault not in (None, ONNX):
        raise InputError(f"{path} is no ONNX file: it {fault.what}", fault.remedy)
    if size >= LARGEST:
        raise InputError(f"{path} has {size / 2**30:.1f} GiB, and an ONNX file at most 2", REMEDY)
    return content


def check_ends(session: Any, metadata: Metadata, path: Path) -> None:
    """Checks that a network has the inputs and outputs that `fmsd export` writes.

    Raises:
        InputError: it has others.
    """
    size = metadata.facts.size
    inputs = [(each.name, each.type, each.shape[1:]) for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    wanted = [LOGIT, PROBABILITY, *([] if metadata.unusual_limit is None else [DISTANCE])]
    if inputs != [(INPUT, "tensor(uint8)", [3, size, size])] or outputs != wanted:
        raise InputError(
            f"{path} is damaged: its network does not take crops of {size} x {size} pixels and "
            f"return {', '.join(wanted)}",
            REMEDY,
        )
