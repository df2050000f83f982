"""Full fine-tuning: every weight learns. The baseline that parameter-efficient methods are measured against."""

from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches


def full(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Makes every parameter trainable."""
    detector.requires_grad_(True)
    return Adaptation()
