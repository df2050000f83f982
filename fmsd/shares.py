"""Shares of a count as whole numbers: 0.29 of 100 is 29, although the product of the floats is 28.999999999999996."""

import math

SLACK = 1e-12
"""The relative error that a share and its product with a count may have; far above that of floats, far below a difference that is meant."""


def floor_share(share: float, count: int) -> int:
    """`share` of `count`, rounded down."""
    return math.floor(share * count * (1 + SLACK))


def ceil_share(share: float, count: int) -> int:
    """`share` of `count`, rounded up."""
    return math.ceil(share * count * (1 - SLACK))
