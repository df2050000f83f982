"""From a decoded frame to the pixels that a viewer sees: RGB in standard dynamic range, square and upright.

The matrix and the range of a frame's components are those that the file declares; where it declares
none they are FFmpeg's choice (BT.601, studio range). HDR (PQ of SMPTE ST 2084, HLG of ARIB STD-B67)
becomes SDR of ITU-R BT.709 by one mapping for all videos, whatever their metadata:

1. PQ: the EOTF of SMPTE ST 2084 gives cd/m2. HLG: the inverse OETF and the OOTF of ITU-R BT.2100
give those of its display of 1000 cd/m2. 2. The largest of R, G and B is mapped by the EETF of ITU-R
BT.2390 from a display of 1000 cd/m2 to one of 203, the reference white of ITU-R BT.2408;
   all three are scaled alike, which keeps the hue. What is darker than 88 cd/m2, as faces mostly are, stays as it is.
3. The primaries are changed from BT.2020 to BT.709, and the inverse of the EOTF of ITU-R BT.1886 (a
power of 2.4) gives the signal.

Below the knee this is what FFmpeg's own swscale makes of such a frame (relative colorimetric),
without the table that takes it seconds to build.
"""

import functools
from fractions import Fraction
from typing import Any, NamedTuple

import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8, UInt16
from numpy import ndarray

from fmsd.errors import InputError, reason

Pixels = UInt8[ndarray, "height width 3"]

HDR: dict[int, str] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
"""The transfer functions of high dynamic range."""

WHITE, PEAK = 203.0, 1000.0
"""cd/m2 of the reference white of HDR (ITU-R BT.2408), which becomes the white of SDR, and of the brightest highlight that keeps its detail."""

WIDEST = 8
"""Largest ratio of the sides of a pixel; a larger one is an error in a file's header."""

BAND = 64
"""Rows of an HDR picture that are mapped at once, in floating point, to spare memory."""


class Picture(NamedTuple):
    """How the frames of a video are shown.

    Args:
        aspect: width of a stored pixel over its height.
        hdr: `pq` or `hlg` where the frames were mapped from high to standard dynamic range.
        interlaced: whether a frame holds two fields; they are left interleaved.
        grown: factors by which a frame was enlarged in x and y, upright, to make its pixels square.
    """

    aspect: Fraction
    hdr: str | None
    interlaced: bool
    grown: tuple[float, float]


def aspect(stream: VideoStream) -> Fraction:
    """Width of a stored pixel over its height; 1 where the file declares none, or within a hundredth of 1.

    Raises:
        InputError: pixels of an impossible shape.
    """
    declared = Fraction(stream.sample_aspect_ratio or 1)
    if not 1 / WIDEST <= declared <= WIDEST:
        raise InputError(
            f"{stream.container.name} declares pixels of the shape "
            f"{declared.numerator}:{declared.denominator}",
            "correct its head",
        )
    return Fraction(1) if abs(declared - 1) < 0.01 else declared


def shown(frame: VideoFrame, shape: Fraction) -> tuple[Pixels, Picture]:
    """A frame as a viewer sees it, and what was done to it.

    Args:
        shape: width of a stored pixel over its height; the shorter direction is enlarged, so that
            no pixel is lost.

    Raises:
        InputError: its colours cannot be converted.
    """
    hdr = HDR.get(frame.color_trc)
    image = (
        converted(frame, "rgb24")
        if hdr is None
        else tone_mapped(converted(frame, "rgb48le"), hdr, frame.color_primaries)
    )
    across, down = max(float(shape), 1.0), max(1 / float(shape), 1.0)
    if shape != 1:
        image = cv2.resize(
            image,
            (round(image.shape[1] * across), round(image.shape[0] * down)),
            interpolation=cv2.INTER_CUBIC,
        )
    matrix = display_matrix(frame)
    return upright(image, matrix), Picture(
        shape, hdr, frame.interlaced_frame, (down, across) if transposed(matrix) else (across, down)
    )


def converted(frame: VideoFrame, form: str) -> Any:
    """A frame as full-range RGB, converted from the matrix and the range that it declares.

    Raises:
        InputError: a matrix that swscale does not know, such as ICtCp.
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


# ---- turned and mirrored


def display_matrix(frame: VideoFrame) -> Float[ndarray, "2 2"] | None:
    """How x and y of a frame are shown: (x, y) of the screen are (x, y) of the frame times this matrix; None where the file says nothing."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return (
        None if data is None else np.frombuffer(bytes(data), "=i4").reshape(3, 3)[:2, :2] / 2.0**16
    )


def transposed(matrix: Float[ndarray, "2 2"] | None) -> bool:
    """Whether a display matrix makes rows of columns."""
    return matrix is not None and bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))


def upright(
    image: Pixels, matrix: Float[ndarray, "2 2"] | None
) -> UInt8[ndarray, "upright_height upright_width 3"]:
    """An image turned by quarters and mirrored as a display matrix asks for."""
    if matrix is None:
        return image
    if transposed(matrix):
        image, right, down = image.transpose(1, 0, 2), matrix[1, 0], matrix[0, 1]
    else:
        right, down = matrix[0, 0], matrix[1, 1]
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


# ---- from high to standard dynamic range

M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
"""The constants of SMPTE ST 2084."""

A, B, C = 0.17883277, 0.28466892, 0.55991073
"""The constants of ARIB STD-B67."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Of the primaries of BT.2020."""

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""ITU-R BT.2087."""


def pq(signal: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The EOTF of SMPTE ST 2084: cd/m2 of a signal from 0 to 1."""
    root = signal ** (1 / M2)
    return 10000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def pq_inverse(light: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The signal of PQ, from 0 to 1, of cd/m2."""
    root = (light / 10000) ** M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2


def hlg(signal: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The inverse OETF of ARIB STD-B67: light of the scene, from 0 to 1, of a signal from 0 to 1."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - C) / A) + B) / 12)


def eetf(light: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """cd/m2 on a display of `WHITE` for cd/m2 on one of `PEAK`: the EETF of ITU-R BT.2390, black at 0.

    In the signal of PQ, with 1 for the brighter display, it is the identity up to a knee, and from
    there a Hermite spline to the peak of the darker.
    """
    top, white = pq_inverse(np.array([PEAK, WHITE]))
    most = white / top
    knee = 1.5 * most - 0.5
    signal = np.minimum(pq_inverse(light) / top, 1)
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    return pq(np.where(signal < knee, signal, spline) * top)


@functools.cache
def tables(
    kind: str,
) -> tuple[Float[ndarray, "65536"], Float[ndarray, "4096"], Float[ndarray, "4096"]]:
    """Light of each 16-bit signal (cd/m2 for `pq`, of the scene for `hlg`); light in rising order, and the factor of the EETF there."""
    signal = np.arange(65536) / 65535
    grid = pq(np.linspace(0, 1, 4096))
    factor = np.divide(eetf(grid), grid, out=np.ones_like(grid), where=grid > 0)
    return (pq if kind == "pq" else hlg)(signal).astype(np.float32), grid, factor


def tone_mapped(
    image: UInt16[ndarray, "height width 3"], kind: str, primaries: int = ColorPrimaries.BT2020
) -> Pixels:
    """16-bit RGB of high dynamic range as SDR of BT.709, by the mapping of this file's head.

    Args:
        kind: `pq` or `hlg`.
        primaries: those of BT.709 are kept; all others count as those of BT.2020, which is what HDR
            is made in.
    """
    table, grid, factor = tables(kind)
    out = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), BAND):
        light = table[image[top : top + BAND]]
        if kind == "hlg":
            light *= PEAK * (light @ LUMINANCE)[..., None] ** np.float32(0.2)
        light *= (np.interp(light.max(-1), grid, factor) / WHITE).astype(np.float32)[..., None]
        if primaries != ColorPrimaries.BT709:
            light = light @ BT2020_TO_BT709.T
        out[top : top + BAND] = np.rint(255 * np.clip(light, 0, 1) ** np.float32(1 / 2.4))
    return out
