"""Shares of a count as whole numbers, without the rounding errors of floats.

0.29 of 100 is 29, although the product of the floats is 28.999999999999996.
"""

import math

SLACK = 1e-12
"""Relative error allowed for a share and its product with a count.

Far above the error of floats, far below any intended difference.
"""


def floor_share(share: float, count: int) -> int:
    """`share` of `count`, rounded down."""
    return math.floor(share * count * (1 + SLACK))


def ceil_share(share: float, count: int) -> int:
    """`share` of `count`, rounded up."""
    return math.ceil(share * count * (1 - SLACK))
