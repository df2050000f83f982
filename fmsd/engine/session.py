"""Dataclasses of a training, and the steps that prepare and run it."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from fmsd.data.content_files import read_contents
from fmsd.data.loading.shards import Shards
from fmsd.data.overlap import REFUSE, SKIP, Overlap, check_overlap, count_overlap
from fmsd.engine.adaptation import AdaptedDetector, adapt
from fmsd.engine.cached_features import use_cached_features
from fmsd.engine.checkpoints import Recovery, check_input_digests, newest_checkpoint
from fmsd.engine.datamodule import DataFactory, DataModule
from fmsd.engine.detectors import build_detector
from fmsd.engine.distributed import broadcast_object, rank_zero_first
from fmsd.engine.learner import Learner, OptimizerFactory, ScheduleFactory
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.lightning_compat import forward_context, log_at_least_every
from fmsd.engine.mask_files import MaskHistoryWriter
from fmsd.engine.model_selection import ModelChoice
from fmsd.engine.scoring import check_expected
from fmsd.engine.stamp import protocol_stamps, training_facts
from fmsd.engine.trainer import (
    TrainerFactory,
    check_first_validation,
    fit,
    reset_peak_gpu_memory,
    seed_everything,
    steps_per_epoch,
    total_steps,
)
from fmsd.errors import InputError
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Loss, check_batch_size, check_views
from fmsd.metrics.coverage import check_coverage
from fmsd.models.detector import Detector
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft import adapter
from fmsd.peft.method import Method
from fmsd.runs.configuration import weights_digest
from fmsd.runs.folder import CHECKPOINTS, MASK, Run
from fmsd.runs.training_frames import unchanged_training_frames

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
        label: the name of its row in reports; None for one that they compose.
    """

    name: str
    folder: Path
    config: str
    command: Sequence[str]
    overrides: Sequence[str]
    choices: Mapping[str, Any]
    label: str | None = None


@dataclass(frozen=True)
class Components:
    """The parts that a training is made of.

    Args:
        detector, optimizer, schedule, data, trainer: factories; the detector is built after the
            seed is set and the data are checked.
        loss: of the frames of a step.
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
    loss: Loss = field(default_factory=DetectionLoss)
    loggers: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The rules of a training beside its components.

    Args:
        seed: of everything that is drawn.
        select: the rule that chooses the weights, see `fmsd.engine.model_selection.SELECTIONS`.
        patience: validated epochs without a better value of the monitored quantity, after which
            training ends; None for never. Checked by `early_stopping`.
        save_every: optimizer steps between checkpoints to resume from, at least 1, beside those at
            the ends of epochs; None for these only.
        overlap: what happens to tests on training frames, see `fmsd.data.overlap`.
        coverage: what becomes of test frames without a score, see `fmsd.metrics.coverage.cover`.
        cache_features: features that never change are computed once and kept on disk, see
            `fmsd.engine.cached_features`.

    Raises:
        InputError: `save_every` is below 1, or `overlap` or `coverage` is unknown.
    """

    seed: int = 0
    select: str = "iid"
    patience: Any = None
    save_every: int | None = 500
    overlap: str = REFUSE
    coverage: str | None = None
    cache_features: bool = True

    def __post_init__(self) -> None:
        """Checks the interval between checkpoints, `overlap` and `coverage`."""
        check_overlap(self.overlap)
        check_coverage(self.coverage)
        if self.save_every is not None and self.save_every < 1:
            raise InputError(
                f"save_every={self.save_every} must be at least 1",
                "null saves at the end of every epoch only",
            )


@dataclass(frozen=True)
class Setup:
    """A training before its detector is built.

    Args:
        choice: how the weights are chosen.
        facts: the facts of the training that its results depend on.
        stamps: the facts of every test dataset, by their stamp.
        training: the content of the training and validation frames, on rank 0; None where it is
            not known.
        overlap: the number of training frames in each test dataset.
        digests: of the settings and the frames, which a resumed training must match, by name.
        began: `time.perf_counter()` at the beginning of the run.
        checkpoint: the one to resume from; None for a new training.
    """

    request: Request
    plan: Plan
    run: Run
    data: DataModule
    trainer: Trainer
    choice: ModelChoice
    facts: Mapping[str, Any]
    stamps: Mapping[str, Any]
    training: pl.DataFrame | None
    overlap: Overlap
    digests: Mapping[str, str]
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


def load_frames(data: DataModule, coverage: str | None) -> None:
    """Loads the frames for training and tests; rank 0 first, which may render embedded images.

    Args:
        coverage: see `Plan`.

    Raises:
        InputError: they cannot be used, or too few of the expected test videos have frames.
    """
    with rank_zero_first():
        data.load("training", "tests")
    check_expected(data, coverage)


def build_setup(
    request: Request,
    plan: Plan,
    data: DataModule,
    trainer: Trainer,
    choice: ModelChoice,
    began: float,
) -> Setup:
    """Collects the facts of a training, and finds the checkpoint to resume from.

    Raises:
        InputError: there are checkpoints, and none is good, or all are of another training; the
            files that an interrupted training began with are others now; or training frames are in
            a test dataset, which is not allowed.
    """
    run = Run(request.folder)
    facts = training_facts(data, plan.select)
    digests = {
        "settings": weights_digest(request.config),
        "training and validation frames": data.splits.both.digest(),
    }
    if data.is_paired:
        digests["pairs of the training frames"] = data.splits.train.pairs_digest()
    if isinstance(data.order, Shards):
        digests["tars of the training frames"] = data.order.digest()
    checkpoint = training = counts = None
    if trainer.is_global_zero:
        checkpoint = newest_checkpoint(run.folder / CHECKPOINTS, digests)
        if plan.overlap != SKIP:
            resumed, frames = checkpoint is not None, data.splits.both
            training = unchanged_training_frames(run, frames) if resumed else read_contents(frames)
        counts = count_overlap(data.tests, training, plan.overlap)
    checkpoint, counts = broadcast_object((checkpoint, counts))
    overlap: Overlap = counts
    stamps = protocol_stamps(data, facts, overlap)
    return Setup(
        request,
        plan,
        run,
        data,
        trainer,
        choice,
        facts,
        stamps,
        training,
        overlap,
        digests,
        began,
        checkpoint,
    )


def build_session(setup: Setup, parts: Components, settings: LearnerSettings) -> Session:
    """Builds and adapts the detector, and the learner that trains it.

    Raises:
        InputError: components or settings that do not fit, or a run that was begun with other
            weights, frames or trained layers.
    """
    run, plan, data, trainer = setup.run, setup.plan, setup.data, setup.trainer
    check_views(parts.loss, data.strong)
    check_batch_size(parts.loss, data.batch_size, trainer.world_size)
    per_epoch = steps_per_epoch(trainer, data.order.batches, settings.accumulate)
    steps = total_steps(trainer, per_epoch, parts.wrapper.warmup_epochs)
    if setup.choice.monitor is not None:
        check_first_validation(trainer, steps, per_epoch)
    # the curves of a short training would have no point
    log_at_least_every(trainer, min(per_epoch, steps))
    seed_everything(plan.seed)
    reset_peak_gpu_memory()
    model = build_detector(parts.detector, trainer.strategy.root_device, trainer.precision)
    base = adapter.fingerprint(model)
    digests, mask = {"base weights": base} | dict(setup.digests), None
    if setup.checkpoint is not None:
        check_input_digests(setup.checkpoint, digests)
        mask = run.folder / MASK if (run.folder / MASK).exists() else None
    adapted = adapt(model, parts.method, trainer, data, mask)
    if adapted.adaptation.mask is not None:
        text = adapted.adaptation.mask.text()
        digests[f"layers in {MASK}"] = hashlib.sha256(text.encode()).hexdigest()
        if setup.checkpoint is not None:
            check_input_digests(setup.checkpoint, digests)
    if plan.cache_features and trainer.world_size == 1 and not settings.compiled:
        shown = steps * settings.accumulate * data.batch_size
        device, precision = trainer.strategy.root_device, partial(forward_context, trainer)
        use_cached_features(model, base, data, shown, device, precision)
    recovery = Recovery(run.folder / CHECKPOINTS, plan.save_every, digests, setup.began)
    learner = Learner(
        model,
        parts.wrapper,
        parts.optimizer,
        parts.schedule,
        adapted.adaptation,
        steps,
        settings,
        parts.loss,
        domains=data.training_domains,
        seed=plan.seed,
        callbacks=[MaskHistoryWriter(run, adapted.adaptation.history), recovery],
    )
    return Session(setup, base, adapted, learner, recovery)


def run_session(session: Session, loggers: Sequence[Logger]) -> Ending:
    """Trains to the end, or until a signal.

    Args:
        loggers: get the curves.
    """
    setup, stopping = session.setup, session.setup.choice.stopping
    finished = fit(setup.trainer, session.learner, setup.data, loggers, setup.checkpoint)
    exhausted = finished and stopping is not None and stopping.exhausted
    # a later prediction by the same trainer resets its number of steps
    return Ending(finished, exhausted and setup.trainer.global_step < session.learner.steps)


def log_sizes(session: Session) -> None:
    """Logs the number of trainable parameters and of frames; warns of one domain to align."""
    data = session.setup.data
    log.info(
        "Method %s: %s are trained on %d frames; %d choose the weights.",
        session.setup.request.name,
        session.adapted.description,
        data.order.frames,
        len(data.splits.validation),
    )
    domains = data.training_domains
    if session.learner.wrapper.by_domain and len(domains) == 1:
        log.warning(
            "The training data has one domain, %s: aligning domains now equals wrapper=sagm "
            "(with wrapper.gamma=1).",
            domains[0],
        )
