"""Selective prediction: the errors that are left if the least certain verdicts are withheld.

Y. Geifman and R. El-Yaniv, Selective Classification for Deep Neural Networks, 2017,
arXiv:1705.08500. AURC and E-AURC: Y. Geifman, G. Uziel and R. El-Yaniv, Bias-Reduced Uncertainty
Estimation for Deep Neural Classifiers, 2019, arXiv:1805.08206. Our reading: items of equal
certainty come in any order, of which the mean is taken; and the best possible curve is that of
exactly this number of items and errors instead of its limit for many.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve of a detector, from the most certain item to all items.

    Args:
        coverage: share of the items with a verdict, in (0, 1].
        risk: share of wrong verdicts among them.
    """

    coverage: Float64[ndarray, " items"]
    risk: Float64[ndarray, " items"]

    @property
    def area(self) -> float:
        """AURC: the mean risk over all coverages; low is good."""
        return float(self.risk.mean())

    @property
    def excess(self) -> float:
        """E-AURC: the area above that of an order with every wrong verdict at the end."""
        items = len(self.risk)
        place = np.arange(1, items + 1)
        right = items - round(float(self.risk[-1]) * items)
        return self.area - float((np.maximum(place - right, 0) / place).mean())


def risk_coverage(
    score: Float64[ndarray, " items"], label: Int[ndarray, " items"], threshold: float = 0.5
) -> RiskCoverage:
    """The risk-coverage curve; certainty is the distance of a score from the threshold.

    Args:
        score: probabilities of fake, of at least one item.
        label: 0 real, 1 fake.
        threshold: a score from it on is called fake.
    """
    certainty = np.abs(score - threshold)
    order = np.argsort(-certainty, kind="stable")
    wrong = ((score >= threshold) != (label == 1)).astype(np.float64)[order]
    ordered = certainty[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(wrong)))
    expected = np.repeat(np.add.reduceat(wrong, starts) / sizes, sizes)
    place = np.arange(1, len(wrong) + 1)
    return RiskCoverage(place / len(wrong), expected.cumsum() / place)
