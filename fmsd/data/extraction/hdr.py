"""Tone mapping of high dynamic range (HDR) frames to the standard range (SDR) of ITU-R BT.709.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) are mapped alike in all videos, whatever their metadata:

1. PQ: the EOTF of SMPTE ST 2084 gives cd/m2. HLG: the inverse OETF and the OOTF of ITU-R BT.2100
   give cd/m2 on its reference display of 1000 cd/m2.
2. The largest of R, G and B is mapped by the EETF of ITU-R BT.2390 from a display of 1000 cd/m2 to
   one of 203, the reference white of ITU-R BT.2408; all three are scaled alike, which keeps the
   hue. Light below 88 cd/m2, as of most faces, is unchanged.
3. The primaries are converted from BT.2020 to BT.709, and the inverse of the EOTF of ITU-R BT.1886
   (a power of 2.4) gives the signal.

Below the knee the result equals that of FFmpeg's swscale (relative colorimetric), without the
lookup table that swscale takes seconds to build.
"""

import functools

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from jaxtyping import Float, UInt8, UInt16
from numpy import ndarray

HDR: dict[int, str] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
"""The HDR transfer functions, by FFmpeg's number."""

SDR_WHITE = 203.0
"""cd/m2 of the HDR reference white (ITU-R BT.2408), which becomes the white of SDR."""

HDR_PEAK = 1000.0
"""cd/m2 of the brightest highlight that keeps its detail."""

BAND_ROWS = 64
"""Rows of an HDR image that are mapped at once in floating point, which bounds the memory."""

M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
"""The constants of SMPTE ST 2084."""

A, B, C = 0.17883277, 0.28466892, 0.55991073
"""The constants of ARIB STD-B67."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Luminance weights of R, G and B in the primaries of BT.2020."""

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Conversion of linear RGB between primaries, ITU-R BT.2087."""


def pq_eotf(signal: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The EOTF of SMPTE ST 2084: cd/m2 of a signal from 0 to 1."""
    root = signal ** (1 / M2)
    return 10000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def pq_inverse_eotf(light: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The inverse EOTF of SMPTE ST 2084: the signal from 0 to 1 of cd/m2."""
    root = (light / 10000) ** M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2


def hlg_inverse_oetf(signal: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The inverse OETF of ARIB STD-B67: scene light from 0 to 1 of a signal from 0 to 1."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - C) / A) + B) / 12)


def bt2390_eetf(light: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The EETF of ITU-R BT.2390 with black at 0: maps cd/m2 below `HDR_PEAK` to below `SDR_WHITE`.

    In the PQ signal, scaled so that 1 is the brighter display's peak, it is the identity up to a
    knee and from there a Hermite spline to the peak of the darker display.
    """
    top, white = pq_inverse_eotf(np.array([HDR_PEAK, SDR_WHITE]))
    most = white / top
    knee = 1.5 * most - 0.5
    signal = np.minimum(pq_inverse_eotf(light) / top, 1)
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    return pq_eotf(np.where(signal < knee, signal, spline) * top)


@functools.cache
def tone_tables(
    kind: str,
) -> tuple[Float[ndarray, "65536"], Float[ndarray, "4096"], Float[ndarray, "4096"]]:
    """Lookup tables of the tone mapping.

    Args:
        kind: `pq` or `hlg`.

    Returns:
        The light of each 16-bit signal (cd/m2 for PQ, scene light for HLG), a grid of rising light
        in cd/m2, and the EETF's factor at each point of the grid.
    """
    signal = np.arange(65536) / 65535
    grid = pq_eotf(np.linspace(0, 1, 4096))
    factor = np.divide(bt2390_eetf(grid), grid, out=np.ones_like(grid), where=grid > 0)
    return (pq_eotf if kind == "pq" else hlg_inverse_oetf)(signal).astype(np.float32), grid, factor


def tone_map(
    image: UInt16[ndarray, "height width 3"], kind: str, primaries: int = ColorPrimaries.BT2020
) -> UInt8[ndarray, "height width 3"]:
    """Maps a 16-bit HDR image to 8-bit SDR of BT.709, as the module's docstring describes.

    Args:
        kind: `pq` or `hlg`.
        primaries: FFmpeg's number of the image's primaries; BT.709 is kept, all others are taken
            for BT.2020, in which HDR is produced.
    """
    table, grid, factor = tone_tables(kind)
    out = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), BAND_ROWS):
        light = table[image[top : top + BAND_ROWS]]
        if kind == "hlg":
            light *= HDR_PEAK * (light @ LUMINANCE)[..., None] ** np.float32(0.2)
        light *= (np.interp(light.max(-1), grid, factor) / SDR_WHITE).astype(np.float32)[..., None]
        if primaries != ColorPrimaries.BT709:
            light = light @ BT2020_TO_BT709.T
        out[top : top + BAND_ROWS] = np.rint(255 * np.clip(light, 0, 1) ** np.float32(1 / 2.4))
    return out
