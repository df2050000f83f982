"""Export: a run's detector as a file that ONNX Runtime or torch run without this package."""

import importlib.util
import logging
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.console import print_place, print_table, track
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.manifest import Manifest
from fmsd.data.samples import choose_frames
from fmsd.engine.datamodule import DataModule, domain_names
from fmsd.engine.detectors import load_folded_detector
from fmsd.errors import InputError
from fmsd.inference.export import (
    PortableDetector,
    largest_difference,
    read_pt2,
    trace,
    write_onnx,
    write_pt2,
)
from fmsd.inference.metadata import KEY, LOGIT, ONNX_SUFFIX, PT2_SUFFIX, Metadata
from fmsd.inference.onnx_scorer import OnnxScorer
from fmsd.inference.quantise import Sizes, quantise
from fmsd.inference.run_facts import feature_bank, run_facts
from fmsd.metrics.table import compute_results
from fmsd.models.detector import Detector
from fmsd.ownership import check_replaceable
from fmsd.runs.folder import Run, owning_run

log = logging.getLogger(__name__)

WRITER = "fmsd export"

TOLERANCE = 1e-3
"""Largest difference of a logit between the detector and its file, see `largest_difference`."""

ENOUGH = 500
"""Frames from which on a change of the AUC is shown without a caution."""

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""What ONNX files are written and checked with."""


def export(
    run: Run,
    detector: Callable[[], Detector],
    out: Path,
    int8: bool = False,
    data: DataModule | None = None,
    frames: int = 1500,
) -> None:
    """Writes a run's detector as an ONNX file or a program of torch, and compares its logits.

    Args:
        detector: builds the detector that the run began with.
        out: FILE.onnx or FILE.pt2.
        int8: store matrices in 8 bits, and measure what that does to the AUC.
        data: with test datasets, for that measurement.
        frames: largest number of frames that it takes.

    Raises:
        InputError: `out` has another suffix, lies among a run's own files or is a file of another
            writer; a package is missing; the backbone cannot be exported, or not in 8 bits; or the
            data cannot be used.
    """
    check_out(out, int8)
    tests = {} if data is None else choose_tests(data, frames)
    facts = run_facts(run, warn=False)
    if not facts.crops_known:
        log.warning(
            "The training data do not say how faces were cropped: whoever uses the file crops them "
            "as fmsd extract does by default."
        )
    bank = feature_bank(run)
    meaning = facts.meanings.get("frame")
    calibration = None if meaning is None else meaning.calibration
    model = PortableDetector(load_folded_detector(run, detector), calibration, bank)
    limit = None if bank is None else bank.limit
    metadata = Metadata(facts, limit, "int8" if int8 else "float32")
    with atomic(out) as partial:
        if out.suffix == PT2_SUFFIX:
            difference = export_pt2(model, metadata, partial)
        elif not int8:
            difference = export_onnx(model, metadata, partial)
        else:
            with tempfile.TemporaryDirectory(prefix=".fmsd-", dir=out.parent) as place:
                whole = Path(place) / "float32.onnx"
                difference = export_onnx(model, metadata, whole)
                sizes = quantise(whole, partial)
                if data is not None:
                    print_changes(OnnxScorer(whole), OnnxScorer(partial), data, tests, sizes)
    print_place(
        f"{out}: {', '.join(model.outputs)} of crops of {facts.size} x {facts.size} pixels; "
        f"{'in float32, ' if int8 else ''}logits differ from torch's by at most {difference:.1e}",
        out,
    )


def check_out(out: Path, int8: bool) -> None:
    """Refuses an output that cannot be written or would replace another file.

    Raises:
        InputError: see `export`.
    """
    if out.suffix not in (ONNX_SUFFIX, PT2_SUFFIX):
        raise InputError(
            f"out={out} is no name of an exported model",
            f"give out=FILE{ONNX_SUFFIX} or out=FILE{PT2_SUFFIX}",
        )
    if int8 and out.suffix == PT2_SUFFIX:
        raise InputError(
            f"int8=true is ONNX Runtime's quantisation, which a {PT2_SUFFIX} file cannot hold",
            f"give out=FILE{ONNX_SUFFIX}, or leave int8=true out",
        )
    if place := owning_run(out):
        raise InputError(
            f"out={out} lies among the files of the run in {place}",
            f"give another out=FILE{out.suffix}",
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if out.suffix == ONNX_SUFFIX and missing:
        raise InputError(
            f"An ONNX file needs the packages {', '.join(missing)}",
            "install them with: pip install 'fmsd[export]'",
        )
    ours = is_exported_pt2 if out.suffix == PT2_SUFFIX else is_exported_onnx
    check_replaceable([out], out, ours, WRITER, f"give another out=FILE{out.suffix}")


def is_exported_onnx(path: Path) -> bool:
    """Whether an ONNX file has the facts of a detector."""
    import onnx  # noqa: PLC0415  of an extra

    return KEY in (each.key for each in onnx.load(path, load_external_data=False).metadata_props)


def is_exported_pt2(path: Path) -> bool:
    """Whether a program of torch has the facts of a detector."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/extra/{KEY}") for name in archive.namelist())


def export_onnx(model: PortableDetector, metadata: Metadata, path: Path) -> float:
    """Writes a detector as an ONNX file.

    Returns:
        The largest difference of its logits.

    Raises:
        InputError: the backbone cannot be exported, or the file computes something else.
    """
    size = metadata.facts.size
    model.use_plain_attention()
    write_onnx(trace(model, size), model, metadata, path)
    scorer = OnnxScorer(path)
    return check_difference(model, size, lambda crops: scorer.run(crops.numpy())[LOGIT])


def export_pt2(model: PortableDetector, metadata: Metadata, path: Path) -> float:
    """Writes a detector as a program of torch; as `export_onnx`."""
    size = metadata.facts.size
    write_pt2(trace(model, size), metadata, path)
    program, _ = read_pt2(path)
    return check_difference(model, size, lambda crops: program(crops)[0].detach().numpy())


def check_difference(
    model: PortableDetector, size: int, run: Callable[[Tensor], np.ndarray]
) -> float:
    """The largest difference of logits between a detector and its file.

    Raises:
        InputError: it is too large.
    """
    difference = largest_difference(model, size, run)
    if not difference <= TOLERANCE:
        raise InputError(
            f"The exported file computes other logits than the run, by up to {difference:.1e}",
            "use the run with fmsd itself, or its weights by fmsd fold",
        )
    return difference


def choose_tests(data: DataModule, frames: int) -> dict[str, Manifest]:
    """At most `frames` frames of the test datasets, equally many of each domain.

    Raises:
        InputError: the data cannot be used, or `frames` is too small.
    """
    data.load("tests")
    return {name: chosen for name, chosen in choose_frames(data.tests, frames).items() if chosen}


def print_changes(
    whole: OnnxScorer,
    small: OnnxScorer,
    data: DataModule,
    tests: Mapping[str, Manifest],
    sizes: Sizes,
) -> None:
    """Prints the AUC of frames in float32 and in 8 bits, for each test dataset."""
    records = []
    for name, manifest in tests.items():
        before, after = (
            frame_auc(manifest, logits) for logits in both(whole, small, data, manifest)
        )
        records.append(
            {
                "dataset": name,
                "frames": len(manifest),
                "auc_float32": before,
                "auc_int8": after,
                "change": after - before,
            }
        )
    print_table(
        "AUC of frames",
        ["dataset", "frames", "float32", "int8", "change"],
        [
            [
                str(each["dataset"]),
                f"{each['frames']:,}",
                f"{each['auc_float32']:.4f}",
                f"{each['auc_int8']:.4f}",
                f"{each['change']:+.4f}",
            ]
            for each in records
        ],
        f"The file has {sizes.after / 2**20:.1f} MiB, and {sizes.before / 2**20:.1f} in float32. "
        "Its thresholds and calibration are those of the run, chosen in float32."
        f"{few_frames([len(manifest) for manifest in tests.values()])}",
        name="int8",
        records=records,
    )


def few_frames(counts: Sequence[int]) -> str:
    """A sentence about changes that were measured on few frames, after a space; empty otherwise."""
    least = min(counts, default=ENOUGH)
    if least >= ENOUGH:
        return ""
    return f" A change on {least} frames may be chance: measure it on {ENOUGH} or more (frames=)."


def both(
    whole: OnnxScorer, small: OnnxScorer, data: DataModule, manifest: Manifest
) -> tuple[np.ndarray, np.ndarray]:
    """The logits of two files on the frames of a manifest, in its order."""
    loader = data.loader(FrameDataset(manifest, domain_names(manifest), data.size), None)
    pairs = [
        (whole.run(batch.image.numpy())[LOGIT], small.run(batch.image.numpy())[LOGIT])
        for batch in track(loader, "Measuring the AUC", len(loader), "batches")
    ]
    first, second = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return first, second


def frame_auc(manifest: Manifest, logits: np.ndarray) -> float:
    """The AUC of a dataset's frames.

    Raises:
        InputError: they are of one class, or a logit is not finite.
    """
    rows = manifest.table.with_columns(logit=pl.Series(logits, dtype=pl.Float32))
    results = compute_results(rows, "", metrics=["auc"])
    return float(results.filter(level="frame")["value"].item())
