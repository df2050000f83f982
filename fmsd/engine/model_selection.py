"""Model selection: the rule that chooses the weights, the values it needs, and early stopping."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from fmsd.checks import check_choice
from fmsd.engine.checkpoints import BEST, LAST, Best
from fmsd.engine.datamodule import DataModule
from fmsd.engine.predictions import gather_predictions, with_logits
from fmsd.errors import InputError
from fmsd.metrics.table import as_one_dataset, compute_results
from fmsd.types import Predictions

log = logging.getLogger(__name__)

MONITOR = "val/video_auc"
"""The quantity whose maximum chooses the weights."""

ORACLE = "oracle/video_auc"
"""The quantity that chooses with `select=oracle`: the mean over the test datasets."""

SELECTIONS = {"iid": MONITOR, "leave_one_domain_out": MONITOR, "last": None, "oracle": ORACLE}
"""The quantity that chooses the weights, by the name of the rule in result tables.

`iid`: the best epoch on a held-out split of the training data; `leave_one_domain_out`: on a forgery
that is not trained on; `last`: no choice; `oracle`: on the test datasets, to know the value of that
choice.
"""


def check_rule(rule: str, left_out: str | None) -> None:
    """Refuses an unknown rule, or one without the forgery that it needs; warns of the oracle.

    Args:
        rule: a name of `SELECTIONS`.
        left_out: the forgery that is not trained on, if there is one.

    Raises:
        InputError: the rule is unknown, or goes without the left-out forgery that it needs.
    """
    check_choice("select", rule, SELECTIONS)
    if (rule == "leave_one_domain_out") != (left_out is not None):
        raise InputError(
            "select=leave_one_domain_out and data.left_out=FORGERY belong together",
            "give both: the forgery is not trained on and chooses the weights",
        )
    if rule == "oracle":
        log.warning(
            "select=oracle: the test datasets choose the weights; its results measure that "
            "choice, not generalisation."
        )


class ValidationMetrics(Callback):
    """Logs metrics of the whole validation split under `val/LEVEL_METRIC` after every epoch.

    Where the test datasets are watched, their video AUC is logged under `oracle/DATASET/video_auc`,
    its mean under `oracle/video_auc`.
    """

    def __init__(self, data: DataModule) -> None:
        self.data = data
        self.outputs: dict[int, list[Predictions]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the scores of the last epoch."""
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
        scored = {
            name: with_logits(
                manifest, gather_predictions(self.outputs[place]), str(trainer.precision)
            )
            for place, (name, manifest) in enumerate(self.data.validations.items())
        }
        rules = self.data.selection
        table = compute_results(as_one_dataset(scored.pop("")), "", video_score=rules.video_score)
        for row in table.iter_rows(named=True):
            name, shown = f"val/{row['level']}_{row['metric']}", row["metric"] == "auc"
            pl_module.log(name, row["value"], prog_bar=shown)
        aucs = {
            name: video_auc(predictions, rules.video_score, rules.naming)
            for name, predictions in scored.items()
        }
        if aucs:
            pl_module.log_dict({f"oracle/{name}/video_auc": value for name, value in aucs.items()})
            pl_module.log(ORACLE, sum(aucs.values()) / len(aucs))


def video_auc(predictions: pl.DataFrame, video_score: str, naming: str = "id") -> float:
    """The AUC over the videos of one dataset."""
    table = compute_results(
        predictions, "", naming=naming, video_score=video_score, metrics=("auc",)
    )
    return table.filter(level="video")["value"].item()


class Patience(EarlyStopping):
    """Ends training when the quantity that chooses the weights has stopped improving.

    Args:
        monitor: the quantity whose maximum chooses them.
        epochs: validated epochs without improvement, at least 1.
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
        """Counts the epoch; stops training after its end and logs why."""
        super().on_validation_end(trainer, pl_module)
        if self.exhausted and trainer.is_global_zero:
            log.info(
                "No better %s in %d epochs: training ends after epoch %d.",
                self.monitor,
                self.wait_count,
                trainer.current_epoch + 1,
            )


def early_stopping(patience: Any, monitor: str | None, warmup_epochs: int) -> Patience | None:
    """The callback that ends training early; None where there is no patience to lose.

    Args:
        patience: epochs without a better value; None to train to the end.
        monitor: the quantity whose maximum chooses the weights; None where nothing chooses them.
        warmup_epochs: epochs before an optimizer wrapper acts.

    Raises:
        InputError: `patience` is no number of epochs, nothing is monitored, or training could end
            before the wrapper acts.
    """
    if patience is None:
        return None
    if type(patience) is not int or patience < 1:
        raise InputError(
            f"patience={patience} is no number of epochs",
            "give at least 1, or null to train to the end",
        )
    if monitor is None:
        raise InputError(
            f"patience={patience} waits for a better epoch, and with select=last none is better "
            "than another",
            "leave one of them out",
        )
    if patience < warmup_epochs:
        raise InputError(
            f"With patience={patience} training could end within the {warmup_epochs} epochs of "
            "plain ERM that the wrapper begins with",
            f"give at least patience={warmup_epochs}, or set wrapper.warmup_epochs=0",
        )
    return Patience(monitor, patience)


@dataclass(frozen=True)
class ModelChoice:
    """How a training chooses its weights.

    Args:
        monitor: the quantity whose maximum chooses them; None where the last weights are taken.
        best: keeps the checkpoint of the best epoch; None without a monitor.
        stopping: ends training early; None to train to the end.
        checkpoint: the file that holds the chosen weights after training.
    """

    monitor: str | None
    best: Best | None
    stopping: Patience | None
    checkpoint: Path

    @property
    def callbacks(self) -> Sequence[Callback]:
        """The callbacks that make the choice."""
        return [callback for callback in (self.best, self.stopping) if callback is not None]

    @property
    def best_value(self) -> float | None:
        """The monitored quantity of the best epoch; None without a monitor or an epoch."""
        if self.best is None or self.best.best_model_score is None:
            return None
        return float(self.best.best_model_score)


def model_choice(rule: str, patience: Any, warmup_epochs: int, checkpoints: Path) -> ModelChoice:
    """The choice of weights by a rule of `SELECTIONS`.

    Args:
        patience: epochs without a better value after which training ends; None for never.
        warmup_epochs: epochs before an optimizer wrapper acts.
        checkpoints: the folder of checkpoints.

    Raises:
        InputError: a patience that has no meaning, see `early_stopping`.
    """
    monitor = SELECTIONS[rule]
    best = None if monitor is None else Best(checkpoints, monitor)
    stopping = early_stopping(patience, monitor, warmup_epochs)
    return ModelChoice(monitor, best, stopping, checkpoints / (LAST if best is None else BEST))
