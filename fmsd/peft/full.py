"""Full fine-tuning: every parameter is trained. The baseline of parameter-efficient methods."""

from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches


def full(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Makes every parameter trainable."""
    detector.requires_grad_(True)
    return Adaptation()
