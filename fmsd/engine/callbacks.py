"""What happens around the training steps: the validation metrics that choose the weights."""

from typing import Any

import polars as pl
from lightning.pytorch import Callback, LightningModule, Trainer

from fmsd.data.manifest import Manifest
from fmsd.engine.predictions import gather, joined
from fmsd.metrics.table import results
from fmsd.types import Predictions

MONITOR = "val/video_auc"
"""The quantity whose maximum chooses the weights."""

IID = "iid"
"""The rule's name in result tables: the best epoch on a held-out split of the training data."""


class ValidationMetrics(Callback):
    """Logs frame and video metrics of the validation split under `val/LEVEL_METRIC`, computed on the whole split at once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.outputs: list[Predictions] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last epoch."""
        self.outputs.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps a batch's scores."""
        self.outputs.append(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the metrics; several training datasets count as one."""
        table = joined(self.manifest, gather(self.outputs)).with_columns(dataset=pl.lit("the validation data"))
        for row in results(table, IID).iter_rows(named=True):
            pl_module.log(f"val/{row['level']}_{row['metric']}", row["value"], prog_bar=row["metric"] == "auc")
