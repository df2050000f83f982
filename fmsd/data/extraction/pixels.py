"""From a decoded frame to the pixels that a viewer sees: upright RGB in SDR, with square pixels.

The matrix and the range of a frame's components are those that the file declares; undeclared ones
are FFmpeg's choice (BT.601, studio range). HDR is mapped by `fmsd.data.extraction.hdr`.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from numpy import ndarray

from fmsd.data.extraction.hdr import HDR, tone_map
from fmsd.errors import InputError, reason

Pixels = UInt8[ndarray, "height width 3"]

CONVERSION = f"1 (libswscale {'.'.join(map(str, av.library_versions['libswscale']))})"
"""The version of this conversion, which is raised when the pixels of some frames change."""

MAX_PIXEL_ASPECT = 8
"""Largest plausible ratio of the sides of a pixel; a larger one is an error in the header."""


class Picture(NamedTuple):
    """How the frames of a video are shown.

    Args:
        aspect: width of a stored pixel over its height.
        hdr: `pq_eotf` or `hlg_inverse_oetf` where frames were mapped from HDR to SDR, else None.
        interlaced: whether a frame holds two fields; they are left interleaved.
        grown: factors by which the upright frame was enlarged in x and y to make its pixels square.
    """

    aspect: Fraction
    hdr: str | None
    interlaced: bool
    grown: tuple[float, float]


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a stored pixel over its height; 1 where undeclared or within a hundredth of 1.

    Raises:
        InputError: the declared ratio exceeds `MAX_PIXEL_ASPECT`.
    """
    declared = Fraction(stream.sample_aspect_ratio or 1)
    if not 1 / MAX_PIXEL_ASPECT <= declared <= MAX_PIXEL_ASPECT:
        raise InputError(
            f"{stream.container.name} declares pixels of the shape "
            f"{declared.numerator}:{declared.denominator}",
            "correct its header",
        )
    return Fraction(1) if abs(declared - 1) < 0.01 else declared


def render_frame(frame: VideoFrame, aspect: Fraction) -> tuple[Pixels, Picture]:
    """The frame as a viewer sees it, and the conversions that were applied.

    Args:
        aspect: width of a stored pixel over its height; the shorter direction is enlarged, so that
            no pixel is lost.

    Raises:
        InputError: the colours of the frame cannot be converted.
    """
    hdr = HDR.get(frame.color_trc)
    image = (
        convert_to_rgb(frame, "rgb24")
        if hdr is None
        else tone_map(convert_to_rgb(frame, "rgb48le"), hdr, frame.color_primaries)
    )
    across, down = max(float(aspect), 1.0), max(1 / float(aspect), 1.0)
    if aspect != 1:
        image = cv2.resize(
            image,
            (round(image.shape[1] * across), round(image.shape[0] * down)),
            interpolation=cv2.INTER_CUBIC,
        )
    matrix = display_matrix(frame)
    return apply_display_matrix(image, matrix), Picture(
        aspect,
        hdr,
        frame.interlaced_frame,
        (down, across) if swaps_axes(matrix) else (across, down),
    )


def convert_to_rgb(frame: VideoFrame, form: str) -> Any:
    """Converts a frame to full-range RGB by the matrix and the range that it declares.

    Args:
        form: FFmpeg's name of the RGB pixel format.

    Raises:
        InputError: swscale does not support the matrix, such as ICtCp.
    """
    try:
        return frame.reformat(
            format=form,
            src_colorspace=frame.colorspace,
            # RGB has no matrix, but some releases of PyAV convert only where both are given
            dst_colorspace=Colorspace.ITU601,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,  # processes are the parallelism
        ).to_ndarray()
    except (OSError, av.error.FFmpegError) as error:
        what = (
            f"The colours of the video (pixel format {frame.format.name}, matrix "
            f"{frame.colorspace} of ITU-T H.273) cannot be converted to RGB"
        )
        raise InputError(
            f"{what} ({reason(error)})", "convert it to BT.709, or leave it out"
        ) from error


def display_matrix(frame: VideoFrame) -> Float[ndarray, "2 2"] | None:
    """The matrix that maps a frame's row vector (x, y) to the screen's; None where undeclared."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return (
        None if data is None else np.frombuffer(bytes(data), "=i4").reshape(3, 3)[:2, :2] / 2.0**16
    )


def swaps_axes(matrix: Float[ndarray, "2 2"] | None) -> bool:
    """Whether a display matrix exchanges rows and columns."""
    return matrix is not None and bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))


def apply_display_matrix(
    image: Pixels, matrix: Float[ndarray, "2 2"] | None
) -> UInt8[ndarray, "upright_height upright_width 3"]:
    """Rotates an image by multiples of 90 degrees and mirrors it, as a display matrix requires."""
    if matrix is None:
        return image
    if swaps_axes(matrix):
        image, right, down = image.transpose(1, 0, 2), matrix[1, 0], matrix[0, 1]
    else:
        right, down = matrix[0, 0], matrix[1, 1]
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
