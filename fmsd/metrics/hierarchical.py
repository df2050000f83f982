"""Seeds and videos resampled together: what other seeds *and* other videos would have given.

A hierarchical bootstrap (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application,
1997, section 3.8): a resample draws seeds of a row with replacement, and videos with replacement,
the same videos for all rows and seeds. The metric of every seed on the resampled videos is known
from `fmsd.metrics.interval`, so only the seeds have yet to be drawn.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

MIN_SEEDS = 3
"""The fewest seeds that are resampled; two show too little of how seeds differ."""


def resample_seeds(
    samples: Sequence[Float64[np.ndarray, " resamples"]], row: str
) -> Float64[np.ndarray, " resamples"]:
    """The mean over seeds of each resample, of drawn seeds where there are at least `MIN_SEEDS`.

    Of n seeds, their variance is too small by the factor (n - 1) / n, as in every bootstrap.

    Args:
        samples: a metric of each seed on the same resamples of the videos.
        row: the name of the row: rows draw their seeds independently of each other, and one row
            draws the same seeds on every dataset.
    """
    values = np.asarray(samples)
    seeds, resamples = values.shape
    if seeds < MIN_SEEDS:
        return values.mean(axis=0)
    rng = np.random.default_rng(zlib.crc32(f"seeds of {row}".encode()))
    drawn = rng.integers(seeds, size=(resamples, seeds))
    return np.take_along_axis(values.T, drawn, axis=1).mean(axis=1)
