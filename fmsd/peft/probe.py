"""Linear probe: the pretrained backbone stays as it is, only the head learns."""

from fmsd.models.detector import Detector
from fmsd.peft.method import Adaptation, Batches


def probe(detector: Detector, batches: Batches | None = None) -> Adaptation:
    """Freezes everything but the head."""
    detector.requires_grad_(False)
    detector.head().requires_grad_(True)
    return Adaptation()
