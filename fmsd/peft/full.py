"""Full fine-tuning: every weight learns. The baseline that parameter-efficient methods are measured against."""

from fmsd.models.detector import Detector
from fmsd.peft.inject import Penalties


def full(detector: Detector) -> Penalties:
    """Makes every parameter trainable."""
    detector.requires_grad_(True)
    return {}
