"""Lightning trainers as every verb makes them."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from fmsd.engine.callbacks import AtomicCheckpointIO
from fmsd.engine.datamodule import DataModule
from fmsd.engine.distributed import UnwrappedDDPStrategy, device_indices
from fmsd.engine.learner import Learner
from fmsd.errors import InputError

TrainerFactory = Callable[..., Trainer]
"""Makes a trainer; its keywords are those of the configuration, more are added."""


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch, and the processes of loaders."""
    lightning.pytorch.seed_everything(seed, workers=True, verbose=False)


def build_trainer(trainer: Callable[..., Trainer], **arguments: Any) -> Trainer:
    """The trainer, if it can be had and gives right numbers.

    Raises:
        InputError: settings that Lightning does not take, several processes by another strategy
            than ours, or 16-bit gradients without the range of bfloat16.
    """
    asked = getattr(trainer, "keywords", {})
    try:
        if (
            SLURMEnvironment.detect() and "plugins" not in asked
        ):  # Lightning would save in the middle of a step and resubmit by itself
            arguments["plugins"] = [SLURMEnvironment(auto_requeue=False)]
        worker = trainer(**arguments)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The trainer does not take its settings ({' '.join(str(error).split())})",
            "correct trainer.NAME=VALUE",
        ) from error
    if worker.world_size > 1 and not isinstance(worker.strategy, UnwrappedDDPStrategy):
        raise InputError(
            f"Training in {worker.world_size} processes needs trainer=ddp, which joins their "
            "gradients",
            "or set trainer.devices=1",
        )
    check_precision(
        str(asked.get("precision", worker.precision))
    )  # a CPU takes another than asked for
    worker.strategy.checkpoint_io = AtomicCheckpointIO()
    return worker


def check_precision(precision: str) -> None:
    """Refuses 16-bit training without the range of float32 in its gradients, and 16-bit weights.

    Raises:
        InputError: such a precision.
    """
    if precision in ("16", "16-mixed", "16-true", "bf16-true"):
        what = (
            "round what learns to 8 bits"
            if precision == "bf16-true"
            else "scale the gradients that wrappers and clipping rely on"
        )
        raise InputError(f"trainer.precision={precision} would {what}", "use bf16-mixed or 32-true")


def single_process_trainer(trainer: Callable[..., Trainer], folder: Path) -> Trainer:
    """The trainer in a single process, in which everything is tested: the numbers then depend on no splitting."""
    devices = device_indices(getattr(trainer, "keywords", {}).get("devices"))[:1] or 1
    return build_trainer(
        trainer,
        devices=devices,
        num_nodes=1,
        strategy="auto",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )


def fit(trainer: Trainer, learner: Learner, data: DataModule, resumed: Path | None = None) -> bool:
    """Trains the learner, from a checkpoint on if there is one; whether to its end.

    Lightning answers Ctrl-C by leaving the program: that is held up until the weights are saved.

    Raises:
        InputError: settings that Lightning refuses once it sees the learner.
    """
    with warnings.catch_warnings():
        for told in (
            "does not have many workers",
            "overridden `transfer_batch_to_device`",
            "sync_dist=True",
            "is not resumable",
            "is not empty",
        ):
            warnings.filterwarnings(
                "ignore", message=f".*{told}.*"
            )  # resumable: the data module knows the position
        try:
            trainer.fit(learner, datamodule=data, ckpt_path=resumed, weights_only=True)
        except SystemExit:
            return False
        except MisconfigurationException as error:
            raise InputError(
                f"The trainer does not take its settings ({' '.join(str(error).split())})",
                "correct trainer.NAME=VALUE",
            ) from error
    return True


def gpu_name(trainer: Trainer) -> str | None:
    """The name of the GPU that was trained on; None for another device."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def peak_gpu_memory(trainer: Trainer) -> int | None:
    """Bytes of GPU memory that tensors took at most; None on another device."""
    device = trainer.strategy.root_device
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def steps_per_epoch(trainer: Trainer, batches: int, accumulate: int) -> int:
    """How often the optimizer steps in an epoch.

    Raises:
        InputError: a step takes no batch.
    """
    if accumulate < 1:
        raise InputError(f"learner.accumulate={accumulate} is out of range", "give at least 1")
    limit = trainer.limit_train_batches
    return math.ceil(
        (min(batches, limit) if isinstance(limit, int) else int(batches * limit)) / accumulate
    )


def total_steps(trainer: Trainer, epoch: int, warmup_epochs: int = 0) -> int:
    """How often the optimizer steps in the whole training, for its schedule.

    Args:
        epoch: steps of an epoch.
        warmup_epochs: epochs before an optimizer wrapper acts.

    Raises:
        InputError: neither epochs nor steps are limited, or the wrapper would never act.
    """
    planned = (
        [epoch * trainer.max_epochs]
        if trainer.max_epochs is not None and trainer.max_epochs >= 0
        else []
    )
    planned += [trainer.max_steps] if trainer.max_steps >= 0 else []
    if not planned:
        raise InputError(
            "Training has no end, so its schedule has no length",
            "set trainer.max_epochs or trainer.max_steps",
        )
    if warmup_epochs and min(planned) <= warmup_epochs * epoch:
        raise InputError(
            f"The wrapper begins with {warmup_epochs} epochs of plain ERM, and training ends "
            "before it would act",
            "raise trainer.max_epochs, or set wrapper.warmup_epochs=0",
        )
    return min(planned)
