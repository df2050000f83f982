"""The losses of this package: cross-entropy and further terms, each with its weight."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fmsd.checks import check_range
from fmsd.losses.classification import classification
from fmsd.losses.consistency import consistency
from fmsd.losses.loss import Outputs
from fmsd.losses.pairs import alignment, uniformity

FURTHER = ("uniformity", "alignment", "consistency")
"""The terms beside classification; one with the weight 0 is not computed."""


@dataclass(frozen=True, slots=True)
class DetectionLoss:
    """Binary cross-entropy plus weighted terms of the features and of a second view.

    Args:
        smoothing: of the labels, see `fmsd.losses.classification`; from 0 to 1.
        uniformity, alignment: weights of the terms of pairs, see `fmsd.losses.pairs`; at least 0.
        consistency: weight of the divergence between two views, see `fmsd.losses.consistency`; at
            least 0.
        strong_share: share of the strongly augmented view in the cross-entropy, from 0 to 1; 0.5
            gives both views the same share.
        ramp: share of the training's steps over which the weight of `consistency` rises from 0,
            from 0 to 1.

    Raises:
        InputError: a value is out of range.
    """

    smoothing: float = 0.0
    uniformity: float = 0.0
    alignment: float = 0.0
    consistency: float = 0.0
    strong_share: float = 0.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in FURTHER:
            check_range(f"loss.{name}", getattr(self, name))
        for name in ("smoothing", "strong_share", "ramp"):
            check_range(f"loss.{name}", getattr(self, name), high=1)

    @property
    def terms(self) -> tuple[str, ...]:
        """`classification`, and the terms with a weight."""
        return ("classification", *(name for name in FURTHER if getattr(self, name)))

    @property
    def needs_features(self) -> bool:
        """Whether a term of pairs has a weight."""
        return self.uniformity > 0 or self.alignment > 0

    @property
    def needs_strong_view(self) -> bool:
        """Whether a term compares or classifies the second view."""
        return self.consistency > 0 or self.strong_share > 0

    def __call__(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """Computes the terms of each frame; those of pairs are equal for all frames."""
        logit, label, counted = outputs.logit, outputs.label, outputs.weight > 0
        terms = {"classification": classification(logit, label, self.smoothing)}
        if self.strong_share:
            strong = classification(_given(outputs.strong_logit), label, self.smoothing)
            terms["classification"] = terms["classification"].lerp(strong, self.strong_share)
        if self.uniformity:
            value = uniformity(_given(outputs.feature), counted)
            terms["uniformity"] = (self.uniformity * value).expand_as(logit)
        if self.alignment:
            value = alignment(_given(outputs.feature), label, counted)
            terms["alignment"] = (self.alignment * value).expand_as(logit)
        if self.consistency:
            weight = self.consistency * (min(1.0, outputs.progress / self.ramp) if self.ramp else 1)
            terms["consistency"] = weight * consistency(logit, _given(outputs.strong_logit))
        return terms


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # as `needs_features` and `needs_strong_view` ask for
    return tensor
