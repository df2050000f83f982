"""A detector as a file that other programs run: ONNX, or torch's exported program (.pt2).

The file takes face crops as bytes and returns their logits, calibrated probabilities and, where the
features of validation frames are known, the distances of the features from those. Normalisation,
calibration and the features of the validation frames are part of the graph.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fmsd.errors import InputError, reason
from fmsd.inference.familiarity import FeatureBank
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
from fmsd.inference.onnx_scorer import LARGEST
from fmsd.metrics.score_meaning import Calibration, to_logit
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits

BOUND = float(to_logit(np.ones(1))[0])
"""Largest logit that a calibration is given."""


class CalibrationLayer(nn.Module):
    """A calibration as a part of a network, see `fmsd.metrics.score_meaning.Calibration`.

    It computes in float64.
    """

    places: Tensor
    heights: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.kind, self.slope, self.offset = calibration.kind, calibration.slope, calibration.offset
        for name in ("places", "heights"):
            values = torch.tensor(getattr(calibration, name), dtype=torch.float64)
            self.register_buffer(name, values)

    def forward(self, logit: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Computes the calibrated probabilities of logits."""
        value = logit.double().clamp(-BOUND, BOUND)
        if self.kind == "isotonic":
            value = self._interpolate(value)
        else:
            value = self.slope * value + self.offset
        return value.sigmoid().to(logit.dtype)

    def _interpolate(self, value: Tensor) -> Tensor:
        """The heights, joined by lines: the share of each step that has been climbed is added."""
        if len(self.places) == 1:
            return torch.zeros_like(value) + self.heights
        starts, ends = self.places[:-1], self.places[1:]
        climbed = ((value[:, None] - starts) / (ends - starts)).clamp(0, 1)
        return self.heights[0] + (climbed * self.heights.diff()).sum(1)


class DistanceLayer(nn.Module):
    """Distances of features from a bank, see `fmsd.inference.familiarity.FeatureBank`."""

    vectors: Tensor

    def __init__(self, bank: FeatureBank) -> None:
        super().__init__()
        self.neighbours = bank.neighbours
        self.register_buffer("vectors", torch.from_numpy(bank.vectors).float())

    def forward(self, features: Float[Tensor, "batch channels"]) -> Float[Tensor, " batch"]:
        """Computes the distance to the k-th nearest vector of the bank."""
        likeness = nn.functional.normalize(features, dim=1) @ self.vectors.T
        kth = likeness.topk(self.neighbours, dim=1).values[:, -1]
        return (2 - 2 * kth).clamp(min=0).sqrt()


class PortableDetector(nn.Module):
    """A detector with all that its exported file computes.

    Args:
        detector: with its adapter folded in.
        calibration: of the scores of frames; None to return them as they are.
        bank: features of validation frames; None to return no distances.
    """

    def __init__(
        self, detector: Detector, calibration: Calibration | None, bank: FeatureBank | None
    ) -> None:
        super().__init__()
        self.detector = detector
        self.calibration = CalibrationLayer(calibration or Calibration("none"))
        self.distance = None if bank is None else DistanceLayer(bank)

    def use_plain_attention(self) -> None:
        """Computes attention by products of matrices: the exporter of ONNX knows few other ways."""
        module: Any
        for module in self.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False

    def forward(self, crops: UInt8[Tensor, "batch 3 size size"]) -> tuple[Tensor, ...]:
        """Computes logits, probabilities and, with a bank, distances."""
        if self.distance is None:
            logit = self.detector(crops)
            return logit, self.calibration(logit)
        features, logit = features_and_logits(self.detector, crops)
        return logit, self.calibration(logit), self.distance(features)

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [LOGIT, PROBABILITY, *([] if self.distance is None else [DISTANCE])]


def trace(model: PortableDetector, size: int) -> ExportedProgram:
    """The program of a detector, for any number of crops.

    Args:
        size: side of the crops in pixels.

    Raises:
        InputError: torch cannot export the backbone.
    """
    crops = torch.zeros(2, 3, size, size, dtype=torch.uint8)  # 1 would become a constant
    model = model.cpu().eval()
    try:
        with torch.no_grad(), quiet():
            shapes = {INPUT: {0: Dim("batch")}}
            return torch.export.export(model, (crops,), dynamic_shapes=shapes)
    except MemoryError:
        raise
    except Exception as error:
        raise _not_exportable(model, "torch.export", error) from error


def write_onnx(
    program: ExportedProgram, model: PortableDetector, metadata: Metadata, path: Path
) -> None:
    """Writes a program as one ONNX file.

    Args:
        program: of the model, with plain attention.

    Raises:
        InputError: the exporter does not know an operation of the backbone, or the file would be
            too large.
    """
    size = sum(value.nbytes for value in program.state_dict.values())
    if size >= LARGEST:
        raise InputError(
            f"The weights have {size / 2**30:.1f} GiB, and an ONNX file can hold 2 GiB",
            "give out=FILE.pt2",
        )
    try:
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=model.outputs, verbose=False
            )
    except MemoryError:
        raise
    except Exception as error:
        raise _not_exportable(model, "the exporter of ONNX", error) from error
    if made is None:
        raise TypeError("torch.onnx.export has returned nothing")
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # names of files and modules on this machine
    made.model.metadata_props.clear()
    made.model.metadata_props[KEY] = metadata.to_text()
    made.save(path, external_data=False)


def write_pt2(program: ExportedProgram, metadata: Metadata, path: Path) -> None:
    """Writes a program that `torch.export.load` reads."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names of files on this machine
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={KEY: metadata.to_text()})


def read_pt2(path: Path) -> tuple[nn.Module, Metadata]:
    """The network and the metadata in a file of `write_pt2`.

    Raises:
        InputError: the file is damaged, or has no metadata.
    """
    extra = {KEY: ""}
    try:
        with path.open("rb") as file:
            program = torch.export.load(file, extra_files=extra)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no program of torch ({reason(error)})", REMEDY) from error
    return program.module(), read_metadata(extra[KEY] or None, path)


def largest_difference(
    model: PortableDetector, size: int, run: Callable[[Tensor], ndarray]
) -> float:
    """The largest difference between the logits of a detector and of its exported file.

    On random images; in units of the larger of 1 and the logit itself.

    Args:
        size: side of the images in pixels.
        run: the logits of the file.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (3, 3, 8, 8), generator=generator).float()
    crops = nn.functional.interpolate(coarse, (size, size), mode="bilinear").to(torch.uint8)
    with torch.no_grad():
        expected = model(crops)[0].numpy()
    return float((np.abs(run(crops) - expected) / np.maximum(1, np.abs(expected))).max())


def _not_exportable(model: PortableDetector, what: str, error: Exception) -> InputError:
    """The refusal of a backbone that a library cannot export."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = f"{type(cause).__name__}: {cause}".strip(" :").splitlines()[0]
    return InputError(
        f"The backbone {type(model.detector.backbone).__name__} cannot be exported: {what} fails "
        f"on it ({why})",
        "use the run with fmsd itself, or its weights by fmsd fold",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the exporters print and warn of from the terminal."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
