"""Resizing of images to the square input of a network."""

import cv2
from jaxtyping import UInt8
from numpy import ndarray


def resize(image: UInt8[ndarray, "height width 3"], size: int) -> UInt8[ndarray, "{size} {size} 3"]:
    """Resizes to `size` x `size` pixels.

    Areas are averaged along a side that shrinks, and pixels interpolated along one that grows.
    """
    height, width, _ = image.shape
    if height == width == size:
        return image
    if min(height, width) < size < max(height, width):
        # OpenCV averages no areas where the other side grows: the sides are done one by one
        smaller = (min(width, size), min(height, size))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    shrinks = size < max(image.shape[:2])
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
