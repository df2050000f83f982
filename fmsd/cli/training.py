"""The verb train: checks its configuration, starts further processes or continues a run."""

import contextlib
import dataclasses
import inspect
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from fmsd.cli.build import build, check_argument_types, data_factory, logger_factories
from fmsd.cli.data_config import absolute_path, add_test_sources, check_source
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.loaded_runs import is_finished, load_interrupted_run
from fmsd.cli.override_kinds import override_text
from fmsd.cli.recorded_config import recorded_config
from fmsd.cli.refusal import packaged_values
from fmsd.cli.run_places import check_local
from fmsd.errors import InputError
from fmsd.json_output import open_document
from fmsd.names import check_label
from fmsd.quoting import hydra_quote, shell_override
from fmsd.runs.folder import CHECKPOINTS, Run
from fmsd.signals import errors_as_interruption, interruption

log = logging.getLogger(__name__)

PAIRED = ("balanced_pairs", "natural_pairs")
"""The values of `data.batches` for pairs of every domain, see `fmsd.engine.training_order`."""


def train(config: DictConfig, folder: Path, command: list[str]) -> int:
    """fmsd train: writes a run, or continues one that was interrupted."""
    settings = HydraConfig.get()
    if config.resume is not None:
        check_local(config.resume, "train", "resume")
        run_folder = Path(absolute_path(config.resume))
        config, folder = load_interrupted_run(run_folder, task_overrides(), config.trust)
        with resumable(Run(folder)):
            return train_in_processes(config, folder, command)
    complete_training(config)
    run, multirun = Run(folder), settings.mode == RunMode.MULTIRUN
    if multirun and is_finished(run, recorded_config(config)):
        log.info("%s is finished: skipped.", folder)
        return 0
    with resumable(run):
        return train_in_processes(config, folder, command)


def train_in_processes(config: DictConfig, folder: Path, command: list[str]) -> int:
    """Trains in processes of its own where they are needed, or in this one.

    Returns:
        The exit code.
    """
    from fmsd.tasks import train as task

    if (code := run_in_processes(config, folder)) is None:
        train_here(config, folder, command)
        return 0
    if code == 0 and open_document() is not None:  # what they print went to stderr
        task.print_results(Run(folder))
    return code


def train_here(config: DictConfig, folder: Path, command: list[str]) -> None:
    """Trains in this process."""
    from fmsd.engine import session
    from fmsd.engine.learner_settings import LearnerSettings
    from fmsd.losses.detection import DetectionLoss
    from fmsd.tasks import train as task

    task.train(
        session.Request(
            name=config["choices"]["method"],
            folder=folder,
            config=recorded_config(config),
            command=command,
            overrides=task_overrides(config.overrides),
            choices=OmegaConf.to_container(config.choices),  # pyright: ignore[reportArgumentType]
            label=config.get("label"),
        ),
        session.Components(
            detector=build(config.backbone),
            method=build(config.method),
            wrapper=build(config.wrapper),
            optimizer=build(config.optimizer),
            schedule=build(config.schedule),
            data=data_factory(config.data),
            trainer=build(config.trainer),
            # runs of fmsd 0.1.0, which may be resumed, have no choice of a loss
            loss=build(config.loss) if "loss" in config else DetectionLoss(),
            loggers=logger_factories(config.logger),
        ),
        session.Plan(  # an earlier run, which may be resumed, has fewer keys
            **{
                field.name: config[field.name]
                for field in dataclasses.fields(session.Plan)
                if field.name in config
            }
        ),
        LearnerSettings(**config.learner),
    )


@contextlib.contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Adds to an interruption of a training how it goes on.

    Raises:
        Interrupted: a signal came.
    """
    try:
        with errors_as_interruption():
            yield
    except KeyboardInterrupt as error:
        raise interruption(error, resume_remedy(run)) from error


def resume_remedy(run: Run) -> str:
    """How an interrupted training goes on; empty where it has no checkpoint yet."""
    if not any((run.folder / CHECKPOINTS).glob("*.ckpt")):
        return ""
    remedy = f"go on with fmsd train {shell_override('resume', run.folder)}"
    if (run.folder / "run.json").exists():
        remedy += (
            f", or test the weights so far with fmsd evaluate {shell_override('run', run.folder)}"
        )
    return remedy


def complete_training(config: DictConfig) -> None:
    """Completes the configuration of a new run into what its record holds, and checks it.

    Raises:
        InputError: a setting that has no effect, or that does not fit another one.
    """
    settings = HydraConfig.get()
    check_label(config.label)
    if config.trust:
        raise InputError(
            f"trust={config.trust} would have no effect: it is about the run of resume=RUN",
            "leave it out",
        )
    add_test_sources(config.data)
    check_source(config.data, task_overrides())
    for node, key in ((config.backbone, "weights"), (config.method.get("mask") or {}, "file")):
        if node.get(key) is not None:
            node[key] = absolute_path(node[key])
    with open_dict(config):
        config.choices = {
            group: choice
            for group, choice in settings.runtime.choices.items()
            if "/" not in group and group != "loader@data" and choice is not None
        }
        config.overrides = task_overrides()
        del config.resume, config.trust
        if config.label is None:
            del config.label
    check_train_config(config)
    if sentence := replaced_batches(config.choices, config.data.batches, config.overrides):
        log.warning("%s", sentence)


def replaced_batches(choices: Mapping[str, str], batches: str, overrides: Sequence[str]) -> str:
    """Says that the wrapper replaced the batches of the method; empty where it did not.

    Both files set `data.batches`, and that of the wrapper is composed later.

    Args:
        choices: by group.
        batches: `data.batches` as it is.
        overrides: of the command line, which may choose the batches.
    """
    key = "data.batches"
    method, wrapper = (
        packaged_values(
            "train", {group: choice for group, choice in choices.items() if group == own}
        ).get(key)
        for own in ("method", "wrapper")
    )
    typed = any(override.lstrip("+").startswith(f"{key}=") for override in overrides)
    if method is None or batches != wrapper or batches == method or typed:
        return ""
    paired = f"{wrapper}_{method}"
    remedy = f"{key}={paired} gives both" if paired in PAIRED else f"give {key}=VALUE to choose"
    return (
        f"wrapper={choices['wrapper']} replaces {key}={method} of method={choices['method']} by "
        f"{wrapper}; {remedy}."
    )


def check_train_config(config: DictConfig) -> None:
    """Rejects settings of a training that its objects would ignore or take in different ways."""
    from fmsd.engine.learner_settings import LearnerSettings
    from fmsd.losses.loss import check_views

    known = inspect.signature(LearnerSettings).parameters
    if unknown := [key for key in config.learner if key not in known]:
        raise InputError(
            f"Training has no setting learner.{unknown[0]}",
            "leave it out; fmsd train --help shows those it has",
        )
    check_argument_types(LearnerSettings, config.learner, "learner")
    kind, reached = config.head.normalise, config.backbone.get("normalise_head", False)
    if not (isinstance(kind, bool) or kind == "feature"):
        raise InputError(
            f"head.normalise={kind} is none of false, true and feature",
            "give e.g. head.normalise=feature",
        )
    if kind != reached:
        raise InputError(
            f"head.normalise={override_text(kind)} does not reach the backbone, which has "
            f"normalise_head={override_text(reached)}",
            "leave backbone.normalise_head out; a backbone file of your own has it from _timm, or "
            "as normalise_head: ${head.normalise}",
        )
    check_views(build(config.loss), config.data.strong)
    if config.data.size != config.backbone.size:
        raise InputError(
            f"data.size={config.data.size} is not the size of the backbone, {config.backbone.size}",
            "set backbone.size=NUMBER, which both follow",
        )
    if type(config.seed) is not int or not 0 <= config.seed < 2**32:
        raise InputError(
            f"seed={config.seed} must be a whole number from 0 to {2**32 - 1}",
            "give e.g. seed=0",
        )


def run_in_processes(config: DictConfig, folder: Path) -> int | None:
    """Runs the training in processes of its own, where the trainer or the launcher needs them.

    Returns:
        Their exit code; None if this process is to train itself.
    """
    from fmsd.engine.launcher import is_launched, launch

    settings = HydraConfig.get()
    # A killed worker of joblib would end the other jobs
    joblib = settings.mode == RunMode.MULTIRUN and "joblib" in settings.launcher["_target_"]
    count = process_count(config.trainer)
    if (count <= 1 and not joblib) or is_launched(os.environ):
        return None
    files = [
        f"--config-dir={source.path}"
        for source in settings.runtime.config_sources
        if source.provider == "command-line"
    ]
    single_job = ["hydra.mode=RUN", f"hydra.run.dir={hydra_quote(folder)}"]
    return launch(["-P", "-m", "fmsd", "train", *task_overrides(), *single_job, *files], count)


LEAST = {"max_epochs": -1, "num_nodes": 1, "log_every_n_steps": 0, "num_sanity_val_steps": -1}
"""Whole numbers among the arguments of Lightning's trainer, each with the least that it takes."""


def check_trainer(trainer: DictConfig) -> None:
    """Rejects numbers on which Lightning would fail later, or which it would read differently.

    Raises:
        InputError: such a number.
    """
    devices = trainer.get("devices", 1)
    if isinstance(devices, ListConfig):
        counted = len(devices) > 0 and all(type(each) is int and each >= 0 for each in devices)
    else:
        counted = re.fullmatch(r"auto|-1|[1-9]\d*|\d+,|\d+(,\d+)+", str(devices)) is not None
    if not counted:
        raise InputError(
            f"trainer.devices={override_text(devices)} is no number of devices",
            "give a number, auto for all of them, or a list of them like '[0,1]'",
        )
    for key, least in LEAST.items():
        value = trainer.get(key, least)
        if value is None and key == "max_epochs":
            continue  # trainer.max_steps may end the training
        if type(value) is not int or value < least:
            raise InputError(
                f"trainer.{key}={override_text(value)} must be a whole number from {least}",
                f"give e.g. trainer.{key}={max(least, 1)}",
            )


def process_count(trainer: DictConfig) -> int:
    """The number of processes that a trainer needs on this machine.

    Raises:
        InputError: see `check_trainer`; or it needs several machines, and nothing has started a
            process for each of their devices.
    """
    from fmsd.engine.launcher import device_indices, is_launched

    check_trainer(trainer)
    strategy, devices = trainer.get("strategy"), trainer.get("devices", 1)
    if not isinstance(strategy, DictConfig):
        return 1
    if trainer.get("num_nodes", 1) > 1 and not is_launched(os.environ):
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes} needs something that starts a process per "
            "device on every machine",
            "start it with -m hydra/launcher=slurm, srun or torchrun",
        )
    if devices in ("auto", -1, "-1"):
        import torch

        return max(1, torch.accelerator.device_count())
    return len(device_indices(devices)) or int(devices)
