"""Linear probe: only the head is trained, on a frozen pretrained backbone."""

from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches


def probe(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Freezes everything but the head."""
    detector.requires_grad_(False)
    detector.head().requires_grad_(True)
    return Adaptation()
