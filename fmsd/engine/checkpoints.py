"""Checkpoints: the best weights of a training, and the newest states to resume from."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fmsd.atomic import atomic
from fmsd.engine.lightning_compat import logged_step, move_best_checkpoint
from fmsd.errors import InputError
from fmsd.runs.integrity import damaged_entry
from fmsd.signals import hold, received, release
from fmsd.state import read_fault

log = logging.getLogger(__name__)

BEST = "best.ckpt"
"""The checkpoint that is tested."""

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The two newest checkpoints."""


class Recovery(Checkpoint):
    """Writes checkpoints to resume from, every few steps and at the end of every epoch; keeps two.

    One more is written after the step in which a queue announces by a signal that it ends the job,
    unless it is the last of an epoch, or several processes would have to agree on the step.

    Args:
        folder: where they lie.
        every: optimizer steps between two of them, at least 1; None for the ends of epochs only.
        input_digests: digests of what a checkpoint does not hold (the configuration, the base
            weights, the frames, the layer mask), by name; a resumed run must match them.
        began: `time.perf_counter()` at the beginning of the run; None for now.
    """

    def __init__(
        self,
        folder: Path,
        every: int | None,
        input_digests: Mapping[str, str] | None = None,
        began: float | None = None,
    ) -> None:
        self.folder, self.every, self.saved, self.step = folder, every, 0, 0
        self.steps_before_batch = 0
        self.input_digests = dict(input_digests or {})
        self.began, self.before = time.perf_counter() if began is None else began, 0.0

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds, including the time before an interruption."""
        return self.before + time.perf_counter() - self.began

    def state_dict(self) -> dict[str, Any]:
        """Seconds and optimizer steps so far, the last step of the curves, and the digests."""
        return {
            "seconds": self.seconds,
            "saved": self.saved,
            "step": self.step,
            "basis": self.input_digests,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the count of seconds and steps."""
        self.before = state_dict["seconds"]
        self.began = time.perf_counter()
        self.saved = state_dict["saved"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets signals of a queue wait for the end of a step."""
        if trainer.world_size == 1:
            hold()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes the step, which ends with one of several batches."""
        self.steps_before_batch = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if it is time; the last step of an epoch waits for its validation."""
        step = trainer.global_step
        due = self.every is not None and step % self.every == 0 and step != self.saved
        last_call = received() and step > self.steps_before_batch
        if trainer.is_last_batch:
            release()
        elif due or last_call:
            self.save(trainer)
        if last_call:
            release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Lets signals wait no longer: there is no further step."""
        if not received():
            release()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes the newest checkpoint and keeps the one before; at no time is there none."""
        self.saved, self.step = trainer.global_step, logged_step(trainer)
        new = self.folder / "new.ckpt"
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            if (self.folder / LAST).exists():
                (self.folder / LAST).replace(self.folder / PREVIOUS)
            new.replace(self.folder / LAST)


class Best(ModelCheckpoint):
    """The checkpoint of the best epoch; its score survives a move of the run's folder.

    Args:
        folder: where it lies.
        monitor: the quantity whose maximum is best.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder, filename="best", monitor=monitor, mode="max", enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the score; the file is that in the present folder.

        No path of the checkpoint is taken: Lightning would remove the file there once another
        epoch is better.

        Raises:
            InputError: the file is missing or damaged; noticed only at the end, it would cost the
                rest of the training.
        """
        best = Path(str(self.dirpath)) / BEST
        moved = move_best_checkpoint(state_dict, best)
        if moved["best_model_path"] and not best.is_file():
            raise InputError(
                f"{best}, with the weights of the best epoch so far, is missing",
                "put it back, or train anew in another folder",
            )
        if moved["best_model_path"]:
            read_checkpoint(best)
        super().load_state_dict(moved)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints that exist whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint in one step."""
        with atomic(Path(path)) as partial:
            torch.save(checkpoint, partial)


def newest_checkpoint(folder: Path, input_digests: Mapping[str, str] | None = None) -> Path | None:
    """The newest good checkpoint to resume from; None where nothing was saved yet.

    Args:
        input_digests: those that the checkpoint must have been written with, as far as they are
            known before the detector is built, see `Recovery`.

    Raises:
        InputError: there are checkpoints, and none is good, or a folder in place of one.
    """
    for name in (BEST, LAST, PREVIOUS):
        if (folder / name).is_dir():
            raise InputError(
                f"{folder / name} is a folder, where a checkpoint is wanted", "move it away"
            )
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    foreign: list[InputError] = []
    for place, path in enumerate(found):
        try:
            state = training_position(path)
            if fault := other_inputs(path, input_digests or {}, state):
                foreign.append(fault)
                raise fault
        except InputError as error:
            others = found[place + 1 :]
            rest = f"going on from {others[0].name}" if others else "none is left"
            log.warning("%s; %s.", error.message, rest)
            continue
        return path
    if foreign:
        raise foreign[0]
    if found:
        raise InputError(f"No checkpoint in {folder} can be read", "train anew in another folder")
    return None


def training_position(path: Path) -> dict[str, Any]:
    """The state that `Recovery` wrote into a checkpoint, which is read as a whole.

    Raises:
        InputError: the file is damaged, or no checkpoint to resume from.
    """
    state = read_checkpoint(path)["callbacks"].get(Recovery.__name__)
    if state is None:
        raise InputError(
            f"The checkpoint {path} cannot be read: it has no training position",
            "train anew in another folder",
        )
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        InputError: the file is damaged, or no checkpoint of this package.
    """
    try:
        if damaged := damaged_entry(path):
            raise InputError(
                f"The checkpoint {path} is damaged: its part {damaged} is not what was written",
                "train anew in another folder",
            )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
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


def recovery_state(checkpoint: Path) -> dict[str, Any]:
    """The state that `Recovery` wrote into a checkpoint."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return content["callbacks"][Recovery.__name__]


def check_input_digests(checkpoint: Path, input_digests: Mapping[str, str]) -> None:
    """Compares the input digests of a checkpoint with the present ones, see `Recovery`.

    Raises:
        InputError: the settings, the base weights or the frames are others, or not recorded.
    """
    if fault := other_inputs(checkpoint, input_digests, recovery_state(checkpoint)):
        raise fault


def other_inputs(
    checkpoint: Path, input_digests: Mapping[str, str], state: Mapping[str, Any]
) -> InputError | None:
    """The refusal of a checkpoint that was written with other inputs, or does not say so.

    None if all are the same.

    Args:
        input_digests: the present ones that are to be compared, see `Recovery`.
        state: what `Recovery` wrote into the checkpoint.
    """
    before = state.get("basis", {})
    differing = [name for name, digest in input_digests.items() if digest != before.get(name)]
    if changed := [name for name in differing if name in before]:
        return InputError(
            f"The {changed[0]} of this run are not those that {checkpoint} was written with",
            "put them back, or train anew in another folder",
        )
    if differing:
        return InputError(
            f"{checkpoint} has no digest of the {differing[0]} that it was written with, as those "
            "of earlier versions of fmsd: whether this run has the same is not known",
            "resume it with the version that wrote it, or train anew in another folder",
        )
    return None
