"""Training: adapt a detector, choose its weights on validation data, then test them once on every test dataset."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml
from torch import nn

from fmsd.console import is_terminal
from fmsd.data import manifest as manifests
from fmsd.data.audit.summary import summary
from fmsd.engine import distributed
from fmsd.engine.callbacks import (
    BEST,
    LAST,
    SELECTIONS,
    AfterEpoch,
    Best,
    EpochBar,
    EpochLines,
    Patience,
    Recovery,
    ValidationMetrics,
    curves,
    newest,
    noted,
    read_checkpoint,
)
from fmsd.engine.datamodule import DataModule, TrainingBatches
from fmsd.engine.learner import Learner, OptimizerFactory, ScheduleFactory, Scorer
from fmsd.engine.scoring import predict, test, tested
from fmsd.engine.stamp import origin, stamps
from fmsd.engine.trainer import (
    Trainer,
    TrainerFactory,
    all_steps,
    alone,
    epoch_steps,
    fit,
    made,
    peak_memory,
    processor,
    seed_everything,
)
from fmsd.engine.weights import built
from fmsd.errors import InputError
from fmsd.figures import style
from fmsd.metrics.table import pooled, results, thresholds
from fmsd.models.detector import Detector
from fmsd.optim.groups import Decay
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.peft import adapter
from fmsd.peft.inject import fold
from fmsd.peft.mask import LayerMask, MaskHistory
from fmsd.peft.method import Adaptation, Method
from fmsd.peft.spectra import spectra, text, watched
from fmsd.quoting import shell_override
from fmsd.report.terminal import show
from fmsd.runs.folder import MASK, SPECTRA, VALIDATION, Run, caption, claimed, provenance
from fmsd.tracking import publish

log = logging.getLogger(__name__)


def train(
    name: str,
    detector: Callable[[], Detector],
    method: Method,
    wrapper: OptimizerWrapper,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory,
    data: DataModule,
    trainer: TrainerFactory,
    folder: Path,
    config: str,
    command: Sequence[str],
    overrides: Sequence[str],
    choices: Mapping[str, Any],
    logger: Mapping[str, publish.Factory] | None = None,
    seed: int = 0,
    select: str = "iid",
    patience: int | None = None,
    save_every: int | None = 500,
    weight_decay: float = 0.01,
    accumulate: int = 1,
    clip: float | None = 1.0,
    reuse: bool = True,
    compiled: bool = False,
    decay: Decay = "matrices",
) -> Run:
    """Trains, selects and tests; everything that the run found lies in its folder. A run that was interrupted goes on.

    Args:
        name: the method's name, for the table.
        detector, trainer: factories; the detector is made after the seed is set and the data is
            checked.
        config: the composed configuration as YAML text.
        command, overrides, choices: what was asked for, for the record.
        select: what chooses the weights, see `fmsd.engine.callbacks.SELECTIONS`.
        patience: epochs without a better value of what chooses the weights, after which training
            ends; None for never.
        logger: factories, by name; what they make gets the curves, the configuration and what was
            found, beside the run's own files.
        save_every: optimizer steps between checkpoints to resume from, beside those at the ends of
            epochs; None for these only.
        compiled: train through `torch.compile`.
        decay: what `weight_decay` applies to, see `fmsd.engine.learner.Learner`.

    Raises:
        InputError: input that cannot be used; before the first checkpoint nothing of the run is
            left behind.
    """
    run, checkpoints = Run(folder), folder / "checkpoints"
    check_selection(select, data)
    monitor, recovery = SELECTIONS[select], Recovery(checkpoints, save_every)
    best = None if monitor is None else Best(checkpoints, monitor)
    waiting = check_patience(patience, monitor, wrapper.warmup_epochs)
    weights = checkpoints / (LAST if best is None else BEST)
    history = AfterEpoch(lambda: write_history(run, adaptation.history) if leading else None)
    bar = getattr(trainer, "keywords", {}).get("enable_progress_bar", is_terminal())
    callbacks = [
        ValidationMetrics(data),
        EpochBar() if bar else EpochLines(),
        history,
        *(one for one in (best, waiting) if one is not None),
        recovery,
    ]
    worker = made(
        trainer,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_progress_bar=bool(bar),
    )
    if worker.val_check_interval != 1.0:
        raise InputError(
            f"trainer.val_check_interval={worker.val_check_interval} is not supported: an epoch "
            "ends with its validation",
            "leave it at 1.0",
        )
    leading = distributed.join(worker)
    if set(distributed.gathered([folder])) != {folder}:
        raise InputError(
            f"The processes of this run have different folders, {folder} among them",
            "give all the same with hydra.run.dir=PATH",
        )
    with claimed(run, config, resumable=True) if leading else nullcontext():
        with distributed.in_turn(leading):  # the first process may have to draw the data
            training, tests = data.training, data.tests
        loggers = publish.made(logger or {}, folder) if leading else {}
        trained = origin(data, select)
        marks = stamps(data, trained)
        if leading and (told := copy_summary(data)):
            log.warning(told)
        seed_everything(seed)
        resumed = distributed.agreed(newest(checkpoints) if leading else None)
        mask = folder / MASK if resumed is not None and (folder / MASK).exists() else None

        if torch.cuda.is_available():  # the jobs of a sweep share the process
            torch.cuda.reset_peak_memory_stats()
        model = built(detector, worker.strategy.root_device, worker.precision)
        parameters, base = count(model.parameters()), adapter.fingerprint(model)
        recovery.basis = {"base weights": base, "training and validation frames": training.digest()}
        if resumed is not None:
            check_basis(resumed, recovery.basis)
        adaptation = adapted(model, method, worker, data, mask)
        measured = watched(model)
        before = spectra(model, measured)
        trainable = count(parameter for parameter in model.parameters() if parameter.requires_grad)
        frames, domains = len(training.where(split="train")), data.training_domains
        learned = f"{trainable:,} of {parameters:,} parameters"
        log.info(
            "Method %s: %s learn on %d frames; %d choose the weights.",
            name,
            learned,
            frames,
            len(data.validation),
        )
        if wrapper.by_domain and len(domains) == 1:
            log.warning(
                "The training data has one domain, %s: aligning domains now equals wrapper=sagm "
                "(with wrapper.gamma=1).",
                domains[0],
            )

        epoch = epoch_steps(worker, math.ceil(frames / data.batch_size), accumulate)
        steps, reuse = all_steps(worker, epoch, wrapper.warmup_epochs), reuse and not compiled
        learner = Learner(
            model,
            wrapper,
            optimizer,
            schedule,
            adaptation,
            steps,
            weight_decay,
            accumulate,
            clip,
            domains,
            seed,
            reuse,
            decay,
        )
        if compiled:
            model.compile()
        if leading:
            write_mask(run, adaptation.mask)
            worker.loggers = [curves(folder, resumed), *loggers.values()]
        if resumed is not None:
            log.info("Going on from %s.", resumed)
        try:
            publish.begin(loggers.values(), folder)
            finished = fit(worker, learner, data, resumed)
            early = (
                finished
                and waiting is not None
                and waiting.exhausted
                and worker.global_step < steps
            )
            distributed.part()
            if not leading:
                return run
            if not finished:
                hint(run, weights)
            chosen = choose(learner, weights)
            if measured:
                run.write(SPECTRA, text(before, spectra(model, measured)))
            settings = yaml.safe_load(config)
            about = {
                "method": {"name": name, **settings["method"]},
                "protocol": settings["data"] | {"selection": select},
            }
            adapter.save(
                model,
                folder,
                {
                    "name": settings["backbone"]["name"],
                    "backbone": settings["backbone"],
                    "hash": base,
                },
                about,
            )
            write_history(run, adaptation.history)
            model._compiled_call_impl = None  # it is tested as an evaluation would
            fold(model.backbone)
            single = worker if worker.world_size == 1 else alone(trainer, folder)
            validation = (
                predict(single, Scorer(model), data.validation_loader(), data.validation)
                if finished
                else None
            )
            if validation is not None:
                run.write_table(VALIDATION, validation)
            record = provenance(command) | {
                "overrides": list(overrides),
                "choices": dict(choices),
                "seed": seed,
                "selection": select,
                "monitor": monitor,
                "monitored": monitored(best, validation, data),
                "thresholds": None
                if validation is None
                else thresholds(validation, data.video_score),
                "origin": trained,
                "stamps": marks,
                "epoch": int(chosen["epoch"]),
                "steps": int(chosen["global_step"]),
                "finished": finished,
                "stopped": "patience" if early else None,
                "resumed": resumed is not None,
                "trainable": trainable,
                "parameters": parameters,
                "device": str(worker.strategy.root_device),
                "accelerator": processor(worker),
                "peak_memory": peak_memory(worker),
                "processes": worker.world_size,
                "seconds": round(recovery.seconds, 1),
                "manifests": {"train": manifests.summary(training), "test": tested(tests)},
                "skipped": data.skipped,
            }
            run.write_record(
                record
            )  # from here on the run can be evaluated, whatever happens to the tests
            if not finished:
                log.warning(
                    "The best weights so far are kept, too; test them with fmsd evaluate %s",
                    shell_override("run", folder),
                )
                raise KeyboardInterrupt
            table = test(run, single, model, data)
            publish.finish(loggers, run)
        finally:
            publish.close(folder)
    show(table, f"AUC, {name} trained on {', '.join(data.train_names)}", caption(record))
    print(f"The run lies in {folder}")
    return run


def copy_summary(data: DataModule) -> str | None:
    """A line about what is wrong with the copies of the datasets that are trained and tested on."""
    manifest = data.own.where(dataset=[*data.train_names, *data.test_names])
    return summary(
        manifest, str(data.name), data.expected, data.names, data.frames, data.train_frames
    )


def hint(run: Run, weights: Path) -> None:
    """Says how an interrupted run goes on.

    Raises:
        KeyboardInterrupt: no weights were chosen yet, so nothing can be tested.
    """
    if (run.folder / "checkpoints" / LAST).exists():
        log.warning("Interrupted; go on with fmsd train %s", shell_override("resume", run.folder))
    if not weights.exists():
        raise KeyboardInterrupt


def choose(learner: Learner, checkpoint: Path) -> dict[str, Any]:
    """Loads the chosen checkpoint into the learner and returns it.

    Raises:
        InputError: there is none.
    """
    if not checkpoint.is_file():
        raise InputError(
            "Training ended before the first validation, so no weights could be chosen",
            "raise trainer.max_steps to at least one epoch",
        )
    chosen = read_checkpoint(checkpoint)
    learner.load_state_dict(chosen["state_dict"])
    return chosen


def check_selection(select: str, data: DataModule) -> None:
    """Refuses a rule that is unknown or lacks what it chooses by; tells the data where the test datasets choose.

    Raises:
        InputError: such a rule.
    """
    if select not in SELECTIONS:
        raise InputError(f"select={select} is unknown", f"choose one of {', '.join(SELECTIONS)}")
    if (select == "leave_one_domain_out") != (data.left_out is not None):
        raise InputError(
            "select=leave_one_domain_out and data.left_out=FORGERY belong together",
            "give both: the forgery is not trained on and chooses the weights",
        )
    data.watched = select == "oracle"
    if data.watched:
        log.warning(
            "select=oracle: the test datasets choose the weights; its numbers say what that "
            "choice is worth, not how well anything generalises."
        )


def check_patience(
    patience: int | None, monitor: str | None, warmup_epochs: int
) -> Patience | None:
    """The callback that ends training early; None where it is to reach its end.

    Args:
        monitor: the quantity whose maximum chooses the weights; None where nothing chooses them.
        warmup_epochs: epochs before an optimizer wrapper acts.

    Raises:
        InputError: it is no number of epochs, there is nothing to wait for, or training could end
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


def monitored(best: Best | None, validation: pl.DataFrame | None, data: DataModule) -> float | None:
    """What the weights were chosen by; where nothing chose them, their video AUC on the validation split, if it was scored."""
    if best is not None:
        return None if best.best_model_score is None else float(best.best_model_score)
    if validation is None:
        return None
    return (
        results(pooled(validation), "", video_score=data.video_score, metrics=("auc",))
        .filter(level="video")["value"]
        .item()
    )


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold."""
    return sum(parameter.numel() for parameter in parameters)


def check_basis(checkpoint: Path, basis: Mapping[str, str]) -> None:
    """Compares what a resumed training rests on with what it was begun with.

    Raises:
        InputError: something has changed.
    """
    if changed := [
        what for what, digest in noted(checkpoint)["basis"].items() if digest != basis[what]
    ]:
        raise InputError(
            f"The {changed[0]} are not those that the run in {checkpoint.parent.parent} was begun "
            "with",
            "put them back, or train anew",
        )


def adapted(
    model: Detector, method: Method, worker: Trainer, data: DataModule, mask: Path | None
) -> Adaptation:
    """Adapts the model where it will be trained, the same in every process."""
    limit, device = worker.limit_train_batches, worker.strategy.root_device
    batches = TrainingBatches(
        data,
        device,
        worker.precision_plugin.forward_context,
        limit if isinstance(limit, int) else None,
        mask,
    )
    adaptation = method(model.to(device), batches)
    if worker.world_size > 1:
        first = {name: tensor.detach().clone() for name, tensor in adapter.state(model).items()}
        distributed.spread(first.values())
        adapter.restore(model, first, "the first process")
    model.train()
    return adaptation


def write_mask(run: Run, mask: LayerMask | None) -> None:
    """Writes which layers a method chose, if it did, as JSON and as a picture."""
    if mask is not None:
        run.write(MASK, mask.text())
        style.write(style.layer_mask(mask), run.folder / "mask.png")


def write_history(run: Run, history: MaskHistory | None) -> None:
    """Writes which artifact subspaces learned so far, where that changes, as JSON and, from the first mask on, as a picture."""
    if history is not None:
        run.write(MASK, history.text())
        if history.steps:
            style.write(style.mask_history(history), run.folder / "mask.png")
