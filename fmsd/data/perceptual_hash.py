"""Perceptual hashes of images: near-duplicates have hashes that differ in few bits.

A hash holds the signs of the low frequencies of a grey image's cosine transform, after C. Zauner,
Implementation and Benchmarking of Perceptual Image Hash Functions, Hagenberg, 2010. Signs do not
depend on brightness and contrast, and the hash of the mirrored image follows from it: every odd
horizontal frequency changes its sign.
"""

import cv2
import numpy as np
from jaxtyping import UInt8, UInt64
from numpy import ndarray

SIDE, FREQUENCIES, COARSE = 64, 16, 8
"""Side of the reduced image; frequencies per axis of a hash, and of its first word."""

TRIMS = (0.0, 0.03, 0.06)
"""Shares of each side that are cut off before an image is hashed once more.

A copy that was cropped has one of these hashes in common with its original.
"""

SHIFT = 6
"""Most pixels of the reduced image by which one image is moved against another."""

WORDS = FREQUENCIES**2 // 64
"""Words of 64 bits of one hash."""

FLAT = 3.0
"""Images below this standard deviation of their grey levels show nothing, and are not compared."""


def _bit_order() -> tuple[ndarray, ndarray]:
    """Vertical and horizontal frequency of each bit, the coarse ones first."""
    rows, columns = np.indices((FREQUENCIES, FREQUENCIES))
    fine = np.maximum(rows, columns) >= COARSE
    order = np.argsort(fine.ravel(), kind="stable")
    return rows.ravel()[order], columns.ravel()[order]


ROWS, COLUMNS = _bit_order()


def _words(bits: ndarray) -> UInt64[ndarray, "... words"]:
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64)


MIRROR = _words(COLUMNS % 2 == 1)
"""The bits that differ between the hash of an image and that of its mirror image."""


def perceptual_hashes(
    pixels: UInt8[ndarray, "height width 3"],
) -> tuple[float, UInt64[ndarray, "trims words"]]:
    """The contrast of an image, and its hash with each of `TRIMS` cut off.

    Returns:
        The standard deviation of the grey levels; words of 64 bits, of which the first holds the
        63 coarse frequencies, in the bits 1 to 63. Bit 0, the brightness, is always 0.
    """
    bits = np.empty((len(TRIMS), FREQUENCIES**2), bool)
    for number, trim in enumerate(TRIMS):
        small = _reduced(pixels, trim).astype(np.float32)
        bits[number] = cv2.dct(small)[ROWS, COLUMNS] > 0
    bits[:, 0] = False
    return float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).std()), _words(bits)


def aligned_correlation(
    one: UInt8[ndarray, "height width 3"],
    other: UInt8[ndarray, "rows columns 3"],
    trims: tuple[float, float],
    mirrored: bool,
) -> float:
    """The correlation of two grey images, reduced and shifted by up to a tenth of their side.

    Args:
        trims: the share that is cut off each side of one and of the other.
        mirrored: mirror the other one.
    """
    first, second = (_reduced(*each) for each in zip((one, other), trims, strict=True))
    if mirrored:
        second = np.ascontiguousarray(second[:, ::-1])
    inner = second[SHIFT:-SHIFT, SHIFT:-SHIFT]
    return float(cv2.matchTemplate(first, inner, cv2.TM_CCOEFF_NORMED).max())


def _reduced(pixels: UInt8[ndarray, "height width 3"], trim: float) -> UInt8[ndarray, "side side"]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    top, left = int(height * trim), int(width * trim)
    part = grey[top : height - top, left : width - left]
    return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def hash_distance(
    one: UInt64[ndarray, "*#items words"], other: UInt64[ndarray, "*#items words"]
) -> ndarray:
    """The number of bits in which hashes differ."""
    return np.bitwise_count(one ^ other).sum(-1, dtype=np.uint16)
