"""Progress of a training on the terminal: a bar, or a line per epoch."""

import logging
import math
import time
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from fmsd.engine.learner import Learner
from fmsd.engine.model_selection import MONITOR

log = logging.getLogger(__name__)


class EpochBar(RichProgressBar):
    """Lightning's progress bar with epochs counted from 1."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch beside the bar."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            epochs = total_epochs(trainer, pl_module)
            self.progress.update(
                self.train_progress_bar_id,
                description=f"Epoch {trainer.current_epoch + 1} of {epochs}",
            )
            self.refresh()


class EpochLines(Callback):
    """Logs loss, validation AUC, duration and time left of every epoch, where no bar is shown."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where this process begins: a resumed training has steps behind it.

        They may be of an epoch whose start this process does not see.
        """
        self.began, self.first_step = time.perf_counter(), trainer.global_step
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to measure an epoch."""
        self.epoch_began = time.perf_counter()
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the loss of a step on its device: to read it would wait for the device."""
        if outputs and outputs.get("loss") is not None:
            self.losses.append(outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the line, on rank 0."""
        if not trainer.is_global_zero or not self.losses:
            return
        now = time.perf_counter()
        parts = [f"training loss {torch.stack(self.losses).mean().item():.4f}"]
        if (auc := trainer.callback_metrics.get(MONITOR)) is not None:
            parts.append(f"video AUC {auc.item():.3f} on the validation split")
        parts.append(format_duration(now - self.epoch_began))
        steps_left = cast(Learner, pl_module).steps - trainer.global_step
        if steps_left > 0 and not trainer.should_stop:
            steps_done = max(trainer.global_step - self.first_step, 1)
            left = format_duration((now - self.began) / steps_done * steps_left)
            parts.append(f"{left} left")
        log.info(
            "Epoch %d of %d: %s.",
            trainer.current_epoch + 1,
            total_epochs(trainer, pl_module),
            ", ".join(parts),
        )


def total_epochs(trainer: Trainer, learner: LightningModule) -> int:
    """Number of epochs of the whole training; the last may be cut short."""
    learner = cast(Learner, learner)
    per_epoch = math.ceil(trainer.num_training_batches / learner.settings.accumulate)
    return math.ceil(learner.steps / per_epoch)


def format_duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
