"""The inspection of one file: format, size, compression and appearance.

A damaged file never ends the examination: whatever a decoder raises about it is reported.
"""

import functools
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import polars as pl
from jaxtyping import Int64, UInt8
from numpy import ndarray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from fmsd.data.extraction.opening import open_video
from fmsd.data.extraction.video import check_complete, read_index, sample_video
from fmsd.data.loading.image import decode, read_bytes
from fmsd.data.processes import map_in_processes
from fmsd.errors import InputError, reason

FILES_PER_TASK = 8
"""Number of files that a process is given at once."""

CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
"""Names of the chroma subsampling that Pillow numbers."""


class Inspection(NamedTuple):
    """The properties of one file; None where it has no such property, or could not be read.

    Args:
        error: why it cannot be read.
        digest: SHA-256 of its bytes, if requested.
        kind: the file type; for a video its suffix and codec.
        bits: bits per pixel.
        quality: the JPEG quality that its quantisation tables correspond to.
        brightness: mean of grey.
        saturation: mean of the saturation of HSV.
        contrast: standard deviation of grey.
        sharpness: variance of the Laplacian of grey.
        length: number of frames of a video file.
    """

    error: str | None = None
    digest: str | None = None
    kind: str | None = None
    width: int | None = None
    height: int | None = None
    bits: float | None = None
    quality: float | None = None
    chroma: str | None = None
    brightness: float | None = None
    saturation: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    length: int | None = None


CRASHED = Inspection(error="the decoder crashed on it, or memory ran out")
"""The inspection of a file that kills the process which reads it."""

INSPECTION_SCHEMA = pl.Schema(
    {
        name: pl.String if name in ("error", "digest", "kind", "chroma") else pl.Float64
        for name in Inspection._fields
    }
    | dict.fromkeys(("width", "height", "length"), pl.Int64)
)
"""The columns of a table of inspections."""


class Job(NamedTuple):
    """A file to inspect.

    Args:
        place: a path, or a member of a tar.
        size: its bytes.
        hashed: whether to compute its digest.
        film: whether it is a video file.
    """

    place: str
    size: int
    hashed: bool
    film: bool


def inspect_all(jobs: Sequence[Job], workers: int) -> Iterator[Inspection]:
    """Inspects all files, in order.

    A file that kills its process is damaged, see `fmsd.data.processes.map_in_processes`.

    Args:
        workers: number of processes; 0 for this one, which a file may then kill.
    """
    return map_in_processes(inspect, jobs, workers, CRASHED, FILES_PER_TASK)


def inspect(job: Job) -> Inspection:
    """Inspects one file."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return _inspect_film(job) if job.film else _inspect_image(job)
    except Exception as error:  # whatever a decoder raises on damaged bytes is the finding
        return Inspection(error=error.message if isinstance(error, InputError) else reason(error))


def _inspect_image(job: Job) -> Inspection:
    data = read_bytes(job.place)
    pixels = decode(data, job.place)
    with Image.open(io.BytesIO(data)) as stored:
        jpeg = isinstance(stored, JpegImageFile)
        kind = stored.format
        quality = (
            estimate_jpeg_quality(stored.quantization[0])
            if jpeg and 0 in stored.quantization
            else None
        )
        chroma = CHROMA.get(get_sampling(stored), "other") if jpeg else None
    height, width, _ = pixels.shape
    inspection = Inspection(
        digest=hashlib.sha256(data).hexdigest() if job.hashed else None,
        kind=kind,
        width=width,
        height=height,
        bits=8 * job.size / (width * height),
        quality=quality,
        chroma=chroma,
    )
    return inspection._replace(**_appearance(pixels))


def _inspect_film(job: Job) -> Inspection:
    """Inspects the first and the last frame of a video file."""
    path = Path(job.place)
    with open_video(path) as (container, stream):
        frames = read_index(container, stream)
        chroma = stream.format.name if stream.format else None
        kind = f"{path.suffix.lower().lstrip('.')} {stream.codec_context.name}"
    check_complete(frames, path)
    samples = list(sample_video(path, 2))
    images = [sample.image for sample in samples if sample.image is not None]
    if any(sample.corrupt for sample in samples):
        raise InputError(
            f"The first or the last frame of {path} is damaged, and was patched by the decoder",
            "copy it again from its source",
        )
    if len(images) < len(samples):
        raise InputError(
            f"The first or the last frame of {path} cannot be decoded",
            "copy it again from its source",
        )
    digest = None
    if job.hashed:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    height, width, _ = images[0].shape
    inspection = Inspection(
        digest=digest,
        kind=kind,
        width=width,
        height=height,
        bits=8 * job.size / (width * height * frames.length),
        chroma=chroma,
        length=frames.length,
    )
    ends = [_appearance(image) for image in images]
    return inspection._replace(
        **{name: float(np.mean([end[name] for end in ends])) for name in ends[0]}
    )


def estimate_jpeg_quality(table: Sequence[int]) -> int:
    """The quality, 1 to 100, at which libjpeg makes this luminance table.

    For the table of another encoder it is the quality of the nearest coarseness.
    """
    return int(np.abs(_coarseness() - sum(table)).argmin()) + 1


@functools.cache
def _coarseness() -> Int64[ndarray, "100"]:
    """The sum of libjpeg's luminance table at each quality."""
    sums = []
    for quality in range(1, 101):
        Image.new("L", (1, 1)).save(file := io.BytesIO(), "JPEG", quality=quality)
        with Image.open(file) as stored:
            assert isinstance(stored, JpegImageFile)
            sums.append(sum(stored.quantization[0]))
    return np.array(sums)


def _appearance(pixels: UInt8[ndarray, "height width 3"]) -> dict[str, float]:
    """Brightness, saturation, contrast and sharpness of an image, see `Inspection`."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return {
        "brightness": float(grey.mean()),
        "saturation": float(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1].mean()),
        "contrast": float(grey.std()),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F).var()),
    }
