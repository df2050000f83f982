"""Weight averaging, mean_i theta_i, as in model soups.

Wortsman et al., ICML 2022, arXiv 2203.05482.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fmsd.merge.task_vectors import Merged, Specialists, mean_weights


@dataclass(frozen=True, slots=True)
class Average:
    """Averages the experts' weights; the base is not used."""

    def __call__(self, specialists: Specialists) -> Iterator[Merged]:
        """Reads every expert once."""
        for name in specialists.names:
            yield Merged(name, mean_weights(specialists, name))
