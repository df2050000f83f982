"""A training before its first step: the request for it, and the objects that carry it out."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from fmsd.console import is_terminal
from fmsd.engine.adaptation import AdaptedDetector, adapt
from fmsd.engine.checkpoints import Recovery, check_basis
from fmsd.engine.datamodule import DataFactory, DataModule
from fmsd.engine.distributed import all_gather_lists, rank_zero_first
from fmsd.engine.learner import Learner, OptimizerFactory, ScheduleFactory
from fmsd.engine.mask_files import MaskHistoryWriter
from fmsd.engine.model_selection import ModelChoice, ValidationMetrics
from fmsd.engine.progress import EpochBar, EpochLines
from fmsd.engine.trainer import (
    TrainerFactory,
    build_trainer,
    fit,
    reset_peak_gpu_memory,
    seed_everything,
    steps_per_epoch,
    total_steps,
)
from fmsd.engine.weights import build_detector
from fmsd.errors import InputError
from fmsd.models.detector import Detector
from fmsd.optim.groups import Decay
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft import adapter
from fmsd.peft.method import Method
from fmsd.runs.folder import MASK, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The request for a training, as the record of its run keeps it.

    Args:
        name: the method's name, for tables.
        folder: the folder of the run.
        config: the composed configuration as YAML text.
        command: the command line.
        overrides: the overrides on the command line.
        choices: the choice of every configuration group.
    """

    name: str
    folder: Path
    config: str
    command: Sequence[str]
    overrides: Sequence[str]
    choices: Mapping[str, Any]


@dataclass(frozen=True)
class Components:
    """The parts that a training is made of.

    Args:
        detector, data, trainer: factories; the detector is built after the seed is set and the data
            are checked.
        loggers: factories of experiment trackers, by name; they get the curves, the configuration
            and the results, beside the run's own files.
    """

    detector: Callable[[], Detector]
    method: Method
    wrapper: OptimizerWrapper
    optimizer: OptimizerFactory
    schedule: ScheduleFactory
    data: DataFactory
    trainer: TrainerFactory
    loggers: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The rules of a training beside its components.

    Args:
        seed: of everything that is drawn.
        select: the rule that chooses the weights, see `fmsd.engine.model_selection.SELECTIONS`.
        patience: validated epochs without a better value of the monitored quantity, after which
            training ends; None for never. Checked by `early_stopping`.
        save_every: optimizer steps between checkpoints to resume from, beside those at the ends of
            epochs; None for these only.
    """

    seed: int = 0
    select: str = "iid"
    patience: Any = None
    save_every: int | None = 500


@dataclass(frozen=True)
class LearnerSettings:
    """The settings of the optimizer step, see `fmsd.engine.learner.Learner`."""

    weight_decay: float = 0.01
    decay: Decay = "matrices"
    accumulate: int = 1
    clip: float | None = 1.0
    compiled: bool = False


@dataclass(frozen=True)
class Setup:
    """A training before its detector is built.

    Args:
        choice: how the weights are chosen.
        facts: the facts of the training that its results depend on.
        stamps: the facts of every test dataset, by their stamp.
        began: `time.perf_counter()` at the beginning of the run.
        checkpoint: the one to resume from; None for a new training.
    """

    run: Run
    data: DataModule
    trainer: Trainer
    choice: ModelChoice
    facts: Mapping[str, Any]
    stamps: Mapping[str, Any]
    began: float
    checkpoint: Path | None


@dataclass(frozen=True)
class Session:
    """A training that is ready to begin, or to go on.

    Args:
        base: the fingerprint of the detector's weights before adaptation.
        recovery: writes the checkpoints to resume from.
    """

    setup: Setup
    base: str
    adapted: AdaptedDetector
    learner: Learner
    recovery: Recovery


@dataclass(frozen=True)
class Ending:
    """How a training ended.

    Args:
        finished: it was not interrupted.
        stopped_early: patience ended it before its last step.
    """

    finished: bool
    stopped_early: bool


def build_training_trainer(
    trainer: TrainerFactory, folder: Path, data: DataModule, choice: ModelChoice
) -> Trainer:
    """Builds the trainer of a run, with a progress bar on a terminal and log lines elsewhere.

    Raises:
        InputError: settings that `build_trainer` refuses, or validation inside of epochs.
    """
    bar = getattr(trainer, "keywords", {}).get("enable_progress_bar", is_terminal())
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


def check_same_folder(folder: Path) -> None:
    """Refuses processes of one run with different folders.

    Raises:
        InputError: they have.
    """
    if set(all_gather_lists([folder])) != {folder}:
        raise InputError(
            f"The processes of this run have different folders, {folder} among them",
            "give all the same with hydra.run.dir=PATH",
        )


def load_frames(data: DataModule, is_rank_zero: bool) -> None:
    """Loads the frames for training and tests; rank 0 first, which may have to draw them."""
    with rank_zero_first(is_rank_zero):
        data.load("training", "tests")


def build_session(
    setup: Setup, parts: Components, plan: Plan, settings: LearnerSettings
) -> Session:
    """Builds and adapts the detector, and the learner that trains it.

    Raises:
        InputError: components or settings that do not fit, or a run that was begun with other
            weights or frames.
    """
    run, data, trainer = setup.run, setup.data, setup.trainer
    seed_everything(plan.seed)
    reset_peak_gpu_memory()
    model = build_detector(parts.detector, trainer.strategy.root_device, trainer.precision)
    base = adapter.fingerprint(model)
    basis = {"base weights": base, "training and validation frames": data.splits.both.digest()}
    mask = None
    if setup.checkpoint is not None:
        check_basis(setup.checkpoint, basis)
        mask = run.folder / MASK if (run.folder / MASK).exists() else None
    adapted = adapt(model, parts.method, trainer, data, mask)
    frames = len(data.splits.train)
    per_epoch = steps_per_epoch(trainer, math.ceil(frames / data.batch_size), settings.accumulate)
    recovery = Recovery(run.folder / "checkpoints", plan.save_every, basis, setup.began)
    learner = Learner(
        model,
        parts.wrapper,
        parts.optimizer,
        parts.schedule,
        adapted.adaptation,
        total_steps(trainer, per_epoch, parts.wrapper.warmup_epochs),
        domains=data.training_domains,
        seed=plan.seed,
        callbacks=[MaskHistoryWriter(run, adapted.adaptation.history), recovery],
        **asdict(settings),
    )
    return Session(setup, base, adapted, learner, recovery)


def run_session(session: Session, loggers: Sequence[Logger]) -> Ending:
    """Trains to the end, or until Ctrl-C.

    Args:
        loggers: get the curves.
    """
    setup, stopping = session.setup, session.setup.choice.stopping
    finished = fit(setup.trainer, session.learner, setup.data, loggers, setup.checkpoint)
    exhausted = finished and stopping is not None and stopping.exhausted
    # a later prediction by the same trainer resets its number of steps
    return Ending(finished, exhausted and setup.trainer.global_step < session.learner.steps)


def log_sizes(session: Session, method: str) -> None:
    """Logs the number of trainable parameters and of frames; warns of one domain to align.

    Args:
        method: its name.
    """
    data = session.setup.data
    log.info(
        "Method %s: %s are trained on %d frames; %d choose the weights.",
        method,
        session.adapted.description,
        len(data.splits.train),
        len(data.splits.validation),
    )
    domains = data.training_domains
    if session.learner.wrapper.by_domain and len(domains) == 1:
        log.warning(
            "The training data has one domain, %s: aligning domains now equals wrapper=sagm "
            "(with wrapper.gamma=1).",
            domains[0],
        )
