"""Scores of batches: the logits of a detector and the manifest rows that they belong to."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from fmsd.engine.datamodule import to_device
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.types import Frames, Predictions


class Scorer(LightningModule):
    """A detector as `trainer.predict` takes it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def transfer_batch_to_device(
        self, batch: Frames, device: torch.device, dataloader_idx: int
    ) -> Frames:
        """Moves pixels and labels to the device."""
        return to_device(batch, device)

    def predict_step(self, batch: Frames, index: int) -> Predictions:
        """Scores a batch."""
        return score_batch(self.detector, batch)


def score_batch(detector: Callable[[Tensor], Tensor], batch: Frames) -> Predictions:
    """The logits of a batch, its manifest rows and contents, on the CPU.

    Raises:
        InputError: a logit is not finite.
    """
    logit = detector(batch.image).float()
    if not logit.isfinite().all():
        raise InputError(
            "The detector's scores are not finite: training diverged", "lower optimizer.lr"
        )
    return Predictions(batch.row.cpu(), logit.cpu(), batch.content.cpu())
