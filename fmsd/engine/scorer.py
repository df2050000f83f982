"""Scores of batches: the logits of a detector and the manifest rows that they belong to."""

from collections.abc import Callable, Collection

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from fmsd.engine.transfer import to_device
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.models.features import features_and_logits
from fmsd.types import Frames, Predictions


class Scorer(LightningModule):
    """A detector as `trainer.predict` takes it.

    Args:
        kept: the rows of the manifest whose features are kept.

    Attributes:
        features: by row, the penultimate features of those that were scored, on the CPU.
    """

    def __init__(self, detector: Detector, kept: Collection[int] = ()) -> None:
        super().__init__()
        self.detector = detector
        self.kept = frozenset(kept) if detector.last_layer() is not None else frozenset()
        self.features: dict[int, Tensor] = {}

    def transfer_batch_to_device(
        self, batch: Frames, device: torch.device, dataloader_idx: int
    ) -> Frames:
        """Moves pixels and labels to the device."""
        return to_device(batch, device)

    def predict_step(self, batch: Frames, index: int) -> Predictions:
        """Scores a batch."""
        rows = batch.row.tolist()
        if not rows:  # no frame of the batch could be read
            return Predictions(batch.row.cpu(), torch.empty(0), batch.content.cpu())
        places = [place for place, row in enumerate(rows) if row in self.kept]
        if not places:
            return score_batch(self.detector, batch)
        vectors, logit = features_and_logits(self.detector, batch.image)
        taken = vectors[places].float().cpu()
        self.features |= {rows[place]: vector for place, vector in zip(places, taken, strict=True)}
        return score_batch(lambda _: logit, batch)


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
