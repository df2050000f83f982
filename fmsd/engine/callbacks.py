"""What happens around the training steps: the validation metrics that choose the weights, and the checkpoints to resume from."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from fmsd.atomic import atomic
from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Learner
from fmsd.engine.predictions import gather, joined
from fmsd.errors import InputError
from fmsd.metrics.table import as_one_dataset, compute_results
from fmsd.state import read_fault
from fmsd.types import Predictions

log = logging.getLogger(__name__)

MONITOR = "val/video_auc"
"""The quantity whose maximum chooses the weights."""

ORACLE = "oracle/video_auc"
"""The quantity that chooses with `select=oracle`: the mean over the test datasets."""

SELECTIONS = {"iid": MONITOR, "leave_one_domain_out": MONITOR, "last": None, "oracle": ORACLE}
"""What chooses the weights, by the rule's name in result tables: the best epoch on a held-out split of the training data, on a forgery that is left
out of it, no choice but the last epoch, or, to know what the choice costs, the best epoch on the
test datasets.
"""


class ValidationMetrics(Callback):
    """Logs frame and video metrics of the validation split under `val/LEVEL_METRIC`, computed on the whole split at once.

    Where the test datasets are watched, their video AUC is logged under `oracle/DATASET/video_auc`,
    its mean under `oracle/video_auc`.
    """

    def __init__(self, data: DataModule) -> None:
        self.data = data
        self.outputs: dict[int, list[Predictions]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last epoch."""
        self.outputs.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch's scores."""
        self.outputs.setdefault(dataloader_idx, []).append(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the metrics; several training datasets count as one."""
        data, found = self.data, {}
        for place, (name, manifest) in enumerate(data.validations.items()):
            table = joined(manifest, gather(self.outputs[place]))
            if name:
                found[name] = compute_results(
                    table, "", naming=data.naming, video_score=data.video_score, metrics=("auc",)
                )
            else:
                found[name] = compute_results(
                    as_one_dataset(table), "", video_score=data.video_score
                )
        for row in found.pop("").iter_rows(named=True):
            pl_module.log(
                f"val/{row['level']}_{row['metric']}", row["value"], prog_bar=row["metric"] == "auc"
            )
        if found:
            aucs = {
                name: table.filter(level="video")["value"].item() for name, table in found.items()
            }
            pl_module.log_dict({f"oracle/{name}/video_auc": value for name, value in aucs.items()})
            pl_module.log(ORACLE, sum(aucs.values()) / len(aucs))


BEST = "best.ckpt"
"""The checkpoint that is tested."""

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The two newest checkpoints."""

CURVES = "logs/metrics.csv"
"""A run's training curves, in its folder."""


class Recovery(Checkpoint):
    """Writes checkpoints to resume from: after every so many optimizer steps and at the end of every epoch; the two newest are kept.

    Args:
        folder: where they lie.
        every: optimizer steps between two of them; None for the ends of epochs only.

    Attributes:
        basis: digests, by name, of what a checkpoint does not hold and the training rests on.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        if every is not None and every < 1:
            raise InputError(
                f"save_every={every} must be at least 1",
                "null saves at the end of every epoch only",
            )
        self.folder, self.every, self.saved, self.step = folder, every, 0, 0
        self.began, self.before = time.perf_counter(), 0.0
        self.basis: dict[str, str] = {}

    @property
    def seconds(self) -> float:
        """How long the run has taken, what came before an interruption included."""
        return self.before + time.perf_counter() - self.began

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint tells about the run so far: its seconds, its optimizer steps, the last step of its curves, and what it rests on."""
        return {
            "seconds": self.seconds,
            "saved": self.saved,
            "step": self.step,
            "basis": self.basis,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.before, self.began, self.saved = (
            state_dict["seconds"],
            time.perf_counter(),
            state_dict["saved"],
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time; the last step of an epoch waits for the validation that belongs to it."""
        step = trainer.global_step
        if (
            self.every
            and step % self.every == 0
            and step != self.saved
            and not trainer.is_last_batch
        ):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes the newest checkpoint and makes the one before the previous one; at no time is there none."""
        self.saved, self.step = trainer.global_step, trainer.fit_loop.total_batch_idx
        new = self.folder / "new.ckpt"
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            if (self.folder / LAST).exists():
                (self.folder / LAST).replace(self.folder / PREVIOUS)
            new.replace(self.folder / LAST)


class AfterEpoch(Callback):
    """Calls a function at the end of every training epoch."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calls it."""
        self.action()


class EpochBar(RichProgressBar):
    """Lightning's progress bar with epochs counted from 1, as everything else here counts them."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(
                self.train_progress_bar_id,
                description=f"Epoch {trainer.current_epoch + 1} of {epochs(trainer, pl_module)}",
            )
            self.refresh()


class EpochLines(Callback):
    """Logs a line at the end of every epoch, where no bar shows that training goes on: loss, validation AUC, seconds and the time that is left."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers where this process begins: a resumed training has steps behind it, perhaps of an epoch whose start it does not see."""
        self.began, self.done = time.perf_counter(), trainer.global_step
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count anew."""
        self.epoch_began = time.perf_counter()
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the loss of a step where it lies: to read it would wait for the device."""
        if outputs and outputs.get("loss") is not None:
            self.losses.append(outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the line, in the first process alone."""
        if not trainer.is_global_zero or not self.losses:
            return
        now = time.perf_counter()
        parts = [f"training loss {torch.stack(self.losses).mean().item():.4f}"]
        if (auc := trainer.callback_metrics.get(MONITOR)) is not None:
            parts.append(f"video AUC {auc.item():.3f} on the validation split")
        parts.append(duration(now - self.epoch_began))
        steps = cast(Learner, pl_module).steps - trainer.global_step
        if steps > 0 and not trainer.should_stop:
            parts.append(
                f"{duration((now - self.began) / max(trainer.global_step - self.done, 1) * steps)} left"
            )
        log.info(
            "Epoch %d of %d: %s.",
            trainer.current_epoch + 1,
            epochs(trainer, pl_module),
            ", ".join(parts),
        )


def epochs(trainer: Trainer, learner: LightningModule) -> int:
    """How many epochs the whole training has; the last may be cut short."""
    learner = cast(Learner, learner)
    return math.ceil(learner.steps / math.ceil(trainer.num_training_batches / learner.accumulate))


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


class Best(ModelCheckpoint):
    """The checkpoint of the best epoch; its score is kept when the run's folder is moved between an interruption and going on."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder, filename="best", monitor=monitor, mode="max", enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the score; the file lies in the folder of now."""
        here, score = str(Path(str(self.dirpath)) / BEST), state_dict["best_model_score"]
        best, known = (
            ("", {}) if score is None else (here, {here: score})
        )  # no path of the checkpoint's: the worse one is removed
        paths = {"best_k_models": known, "best_model_path": best, "kth_best_model_path": best}
        super().load_state_dict(
            state_dict | paths | {"dirpath": self.dirpath, "last_model_path": ""}
        )


class Patience(EarlyStopping):
    """Ends training when the quantity that chooses the weights has not improved for a number of epochs.

    Args:
        monitor: the quantity whose maximum chooses them.
        epochs: that number, at least 1; only validated epochs count.
    """

    def __init__(self, monitor: str, epochs: int) -> None:
        super().__init__(
            monitor, patience=epochs, mode="max", check_finite=False, check_on_train_epoch_end=False
        )

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validated epochs brought no improvement."""
        return self.wait_count >= self.patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops at once where the interruption came after the last epoch."""
        trainer.should_stop = trainer.should_stop or self.exhausted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the epoch; tells the trainer to stop after its end, and logs why."""
        super().on_validation_end(trainer, pl_module)
        if self.exhausted and trainer.is_global_zero:
            log.info(
                "No better %s in %d epochs: training ends after epoch %d.",
                self.monitor,
                self.wait_count,
                trainer.current_epoch + 1,
            )


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints that are there whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint in one step."""
        with atomic(Path(path)) as partial:
            torch.save(checkpoint, partial)


def newest(folder: Path) -> Path | None:
    """The checkpoint to resume from; None where nothing was saved yet.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for place, path in enumerate(found):
        try:
            if Recovery.__name__ not in read_checkpoint(path)["callbacks"]:
                raise InputError(
                    f"The checkpoint {path} cannot be read: it lacks where training stood",
                    "train anew in another folder",
                )
        except InputError as error:
            rest = (
                f"going on from {found[place + 1].name}"
                if place + 1 < len(found)
                else "none is left"
            )
            log.warning("%s; %s.", error.message, rest)
            continue
        return path
    if found:
        raise InputError(f"No checkpoint in {folder} can be read", "train anew in another folder")
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        InputError: it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        raise InputError(
            f"The checkpoint {path} cannot be read: it {read_fault(path, error).what}",
            "train anew in another folder",
        ) from error
    if not (
        isinstance(content, dict)
        and isinstance(content.get("state_dict"), dict)
        and isinstance(content.get("callbacks"), dict)
    ):
        raise InputError(
            f"The checkpoint {path} cannot be read: it is none of a training with fmsd",
            "train anew in another folder",
        )
    return content


def noted(checkpoint: Path) -> dict[str, Any]:
    """What `Recovery` wrote into a checkpoint."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["callbacks"][
        Recovery.__name__
    ]


def curves(folder: Path, resumed: Path | None) -> CSVLogger:
    """The logger of a run's training curves; after an interruption it goes on where the checkpoint was made."""
    logger = CSVLogger(folder, name="logs", version="", flush_logs_every_n_steps=1)
    file = folder / CURVES
    if resumed is not None and file.exists():
        lines = file.read_bytes().decode().splitlines(keepends=True) or ["step\n"]
        last, names = noted(resumed)["step"], lines[0].strip().split(",")
        whole = [
            line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(names) - 1
        ]
        kept = [line for line in whole if int(line.strip().split(",")[names.index("step")]) <= last]
        file.unlink()  # the logger would do so, with a warning
        logger.experiment.metrics_keys = names
        with atomic(file) as partial:
            partial.write_bytes((lines[0] + "".join(kept)).encode())
    return logger
