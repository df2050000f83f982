"""Lightning trainers: their construction, a fit, and the number of its steps."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from fmsd.console import is_terminal
from fmsd.engine.checkpoints import AtomicCheckpointIO
from fmsd.engine.datamodule import DataModule
from fmsd.engine.distributed import UnwrappedDDPStrategy
from fmsd.engine.launcher import device_indices
from fmsd.engine.learner import Learner
from fmsd.engine.lightning_compat import LightningExit, leave_signals_alone
from fmsd.engine.model_selection import ModelChoice, ValidationMetrics
from fmsd.engine.progress import EpochBar, EpochLines
from fmsd.errors import InputError
from fmsd.signals import handled

TrainerFactory = partial[Trainer]
"""Makes a trainer; its keywords are those of the configuration, more are added."""

EXPECTED_WARNINGS = (
    "does not have many workers",
    "overridden `transfer_batch_to_device`",
    "sync_dist=True",
    "is not resumable",  # the data module knows the position
    "is not empty",
)
"""Parts of Lightning's warnings that do not apply here."""


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch, and the processes of loaders."""
    lightning.pytorch.seed_everything(seed, workers=True, verbose=False)


def build_trainer(trainer: TrainerFactory, **arguments: Any) -> Trainer:
    """Builds a trainer and refuses settings that would give wrong results.

    Args:
        arguments: added to the keywords of the factory.

    Raises:
        InputError: settings that Lightning refuses, several processes by a strategy other than
            `UnwrappedDDPStrategy`, or a precision that `check_precision` refuses.
    """
    try:
        built = trainer(plugins=trainer_plugins(trainer.keywords.get("plugins")), **arguments)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise trainer_error(error) from error
    if built.world_size > 1 and not isinstance(built.strategy, UnwrappedDDPStrategy):
        raise InputError(
            f"Training in {built.world_size} processes needs trainer=ddp, which joins their "
            "gradients",
            "or set trainer.devices=1",
        )
    if handled():
        leave_signals_alone(built)
    # a CPU may take another precision than the configured one
    check_precision(str(trainer.keywords.get("precision", built.precision)))
    return built


def trainer_plugins(configured: Any) -> list[Any]:
    """The plugins of a trainer: the configured ones, and those that this package adds.

    Args:
        configured: one plugin, a list of them, or None.
    """
    plugins = [] if configured is None else configured
    plugins = [*plugins] if isinstance(plugins, Sequence) else [plugins]
    if not plugins and SLURMEnvironment.detect():
        # Lightning would save in the middle of a step and resubmit by itself
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return [*plugins, AtomicCheckpointIO()]


def build_training_trainer(
    trainer: TrainerFactory, folder: Path, data: DataModule, choice: ModelChoice
) -> Trainer:
    """Builds the trainer of a run, with a progress bar on a terminal and log lines elsewhere.

    Raises:
        InputError: settings that `build_trainer` refuses, or validation inside of epochs.
    """
    bar = trainer.keywords.get("enable_progress_bar", is_terminal())
    callbacks = [ValidationMetrics(data), EpochBar() if bar else EpochLines(), *choice.callbacks]
    # without a checkpoint callback Lightning would add one of its own
    no_checkpoints = {} if choice.best is not None else {"enable_checkpointing": False}
    built = build_trainer(
        trainer,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_progress_bar=bool(bar),
        **no_checkpoints,
    )
    if built.val_check_interval != 1.0:
        raise InputError(
            f"trainer.val_check_interval={built.val_check_interval} is not supported: an epoch "
            "ends with its validation",
            "leave it at 1.0",
        )
    return built


def single_process_trainer(trainer: TrainerFactory, folder: Path) -> Trainer:
    """A trainer in one process, for scoring: results then do not depend on a splitting."""
    devices = device_indices(trainer.keywords.get("devices"))[:1] or 1
    return build_trainer(
        trainer,
        devices=devices,
        num_nodes=1,
        strategy="auto",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )


def check_precision(precision: str) -> None:
    """Refuses gradients in float16, which have too small a range, and 16-bit weights.

    Raises:
        InputError: a precision with gradients or weights of 16 bits.
    """
    if precision in ("16", "16-mixed", "16-true", "bf16-true"):
        effect = (
            "round trainable parameters to 8 bits"
            if precision == "bf16-true"
            else "scale the gradients that wrappers and clipping rely on"
        )
        raise InputError(
            f"trainer.precision={precision} would {effect}", "use bf16-mixed or 32-true"
        )


def trainer_error(error: Exception) -> InputError:
    """Lightning's refusal of settings, as an error for the user."""
    return InputError(
        f"The trainer does not take its settings ({' '.join(str(error).split())})",
        "correct trainer.NAME=VALUE",
    )


def fit(
    trainer: Trainer,
    learner: Learner,
    data: DataModule,
    loggers: Sequence[Logger] = (),
    resumed: Path | None = None,
) -> bool:
    """Trains the learner to its end, or until a signal.

    Args:
        loggers: get the curves; they write into the run's folder, so they are made once its lock
            is held, after the trainer.
        resumed: the checkpoint to go on from.

    Returns:
        Whether training reached its end.

    Raises:
        InputError: settings that Lightning refuses once it sees the learner.
    """
    trainer.loggers = list(loggers)
    with warnings.catch_warnings():
        for text in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=f".*{text}.*")
        try:
            trainer.fit(learner, datamodule=data, ckpt_path=resumed, weights_only=True)
        except LightningExit:
            return False
        except MisconfigurationException as error:
            raise trainer_error(error) from error
    return True


def gpu_name(trainer: Trainer) -> str | None:
    """The name of the GPU that the trainer works on; None for another device."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def reset_peak_gpu_memory() -> None:
    """Starts a new measurement of GPU memory: the jobs of a sweep share their process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory(trainer: Trainer) -> int | None:
    """The largest number of bytes of GPU memory in tensors; None on another device."""
    device = trainer.strategy.root_device
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def steps_per_epoch(trainer: Trainer, batches: int, accumulate: int) -> int:
    """Number of optimizer steps in an epoch.

    Args:
        batches: of an epoch, before the trainer's limit.
        accumulate: batches per step.
    """
    limit = trainer.limit_train_batches
    used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return math.ceil(used / accumulate)


def check_first_validation(trainer: Trainer, steps: int, per_epoch: int) -> None:
    """Checks that a training is validated at least once, so that weights can be chosen.

    Args:
        steps: optimizer steps of the training.
        per_epoch: those of an epoch, which ends with its validation.

    Raises:
        InputError: the training ends before the first validation.
    """
    every = trainer.check_val_every_n_epoch or 1
    if steps >= every * per_epoch:
        return
    if steps == trainer.max_steps:
        remedy = f"raise trainer.max_steps to at least {every * per_epoch}"
    else:
        remedy = f"raise trainer.max_epochs to at least {every}"
    raise InputError(
        f"Training ends after {steps} steps, before its first validation after "
        f"{every * per_epoch}, which chooses the weights",
        f"{remedy}, or take the last weights with select=last",
    )


def total_steps(trainer: Trainer, per_epoch: int, warmup_epochs: int = 0) -> int:
    """Number of optimizer steps in the whole training, for its schedule.

    Args:
        per_epoch: optimizer steps of an epoch.
        warmup_epochs: epochs before an optimizer wrapper acts.

    Raises:
        InputError: neither epochs nor steps are limited, or the wrapper would never act.
    """
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(per_epoch * trainer.max_epochs)
    if not limits:
        raise InputError(
            "Training has no end, so its schedule has no length",
            "set trainer.max_epochs or trainer.max_steps",
        )
    steps = min(limits)
    if warmup_epochs and steps <= warmup_epochs * per_epoch:
        raise InputError(
            f"The wrapper begins with {warmup_epochs} epochs of plain ERM, and training ends "
            "before it would act",
            "raise trainer.max_epochs, or set wrapper.warmup_epochs=0",
        )
    return steps
