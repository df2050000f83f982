"""The parts of Lightning without a documented interface that this package relies on.

Each has a test in tests/test_lightning_compat.py, so that a release of Lightning that changes one
is noticed there and mended here.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from fmsd.signals import keep_handling

LightningExit = SystemExit
"""The exception that `Trainer.fit` and `Trainer.predict` raise for a KeyboardInterrupt."""


def fit_position(trainer: Trainer) -> tuple[int, int]:
    """The epoch and the index of the batch that a training goes on with."""
    loop: Any = trainer.fit_loop
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    running = epochs.started > epochs.processed  # else `batches` counts the epoch before
    over = running and batches.processed >= trainer.num_training_batches
    return epochs.processed + over, batches.processed if running and not over else 0


def logged_step(trainer: Trainer) -> int:
    """The step under which a logger gets the next values of the training loop."""
    return trainer.fit_loop.total_batch_idx


def forward_context(trainer: Trainer) -> AbstractContextManager[Any]:
    """The autocast context of the trainer's precision, for a forward pass."""
    return trainer.precision_plugin.forward_context()


def setup_processes(trainer: Trainer) -> None:
    """Initialises the process group of a trainer before it fits."""
    trainer.strategy.setup_environment()


class _KeepHandling(Callback):
    """Handles Ctrl-C while a trainer cleans up, which would ignore it."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        keep_handling()


def leave_signals_alone(trainer: Trainer) -> None:
    """Makes a trainer leave signals to the handler of `fmsd.signals`.

    At SIGTERM its own would start a broadcast in the middle of another collective operation.
    """
    trainer._signal_connector._sigterm_notifier_fn = lambda signum, _: None
    trainer.callbacks.append(_KeepHandling())  # pyright: ignore[reportAttributeAccessIssue]


def log_at_least_every(trainer: Trainer, steps: int) -> None:
    """Lowers the number of steps between two logged values to at most `steps`."""
    settings: Any = trainer
    settings.log_every_n_steps = min(settings.log_every_n_steps, steps)


def set_csv_columns(logger: CSVLogger, names: Sequence[str]) -> None:
    """Makes a CSV logger continue a file that has these columns."""
    logger.experiment.metrics_keys = list(names)


def move_best_checkpoint(state: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The state of a `ModelCheckpoint` that keeps one checkpoint, which now lies at `file`."""
    score = state["best_model_score"]
    best, known = ("", {}) if score is None else (str(file), {str(file): score})
    return dict(state) | {
        "dirpath": str(file.parent),
        "best_k_models": known,
        "best_model_path": best,
        "kth_best_model_path": best,
        "last_model_path": "",
    }
