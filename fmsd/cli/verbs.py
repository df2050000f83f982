"""One function a verb: from its configuration to its task, which is imported when it runs."""

import dataclasses
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.cli.build import (
    build,
    build_data,
    build_selection,
    check_arguments_of,
    data_factory,
    loggers,
)
from fmsd.cli.compose import (
    absolute,
    add_others,
    based,
    check_outside,
    check_record,
    check_source,
    done,
    located,
    resumed,
    trained,
)
from fmsd.cli.files import CONF
from fmsd.cli.merging import merge
from fmsd.cli.trust import load_run_config, used_loggers
from fmsd.errors import InputError
from fmsd.quoting import quote
from fmsd.runs.folder import EXPLANATIONS, Run

log = logging.getLogger(__name__)


def train(config: DictConfig, folder: Path) -> int:
    """fmsd train: writes a run, or goes on with one that was interrupted."""
    from fmsd.engine import training
    from fmsd.engine.launcher import is_launched, launch
    from fmsd.tasks import train as task

    settings = HydraConfig.get()
    if config.resume is not None:
        config, folder = resumed(
            Path(config.resume).expanduser().absolute(), settings.overrides.task, config.trust
        )
    else:
        if config.trust:
            raise InputError(
                f"trust={config.trust} would have no effect: it is about the run of resume=RUN",
                "leave it out",
            )
        add_others(config.data)
        check_source(config.data, settings.overrides.task)
        for node, key in ((config.backbone, "weights"), (config.method.get("mask") or {}, "file")):
            if node.get(key) is not None:
                node[key] = located(node[key])
        with open_dict(config):
            config.choices = {
                name: choice
                for name, choice in settings.runtime.choices.items()
                if "/" not in name and name != "loader@data" and choice is not None
            }
            config.overrides = list(settings.overrides.task)
            del config.resume, config.trust
        known = inspect.signature(training.LearnerSettings).parameters
        if odd := [key for key in config.learner if key not in known]:
            raise InputError(
                f"Training has no setting learner.{odd[0]}",
                "leave it out; fmsd train --help shows those it has",
            )
        check_arguments_of(training.LearnerSettings, config.learner, "learner")
        if not isinstance(config.head.normalise, bool):
            raise InputError(
                f"head.normalise={config.head.normalise} is neither true nor false",
                "give e.g. head.normalise=true",
            )
        if config.head.normalise != config.backbone.get("cosine_head", False):
            raise InputError(
                f"head.normalise={str(config.head.normalise).lower()} does not reach the "
                "backbone, whose cosine_head says otherwise",
                "leave backbone.cosine_head out; a backbone file of your own has it from _timm, "
                "or as cosine_head: ${head.normalise}",
            )
        if config.data.size != config.backbone.size:
            raise InputError(
                f"data.size={config.data.size} is not the size of the backbone, "
                f"{config.backbone.size}",
                "set backbone.size=NUMBER, which both follow",
            )
        if type(config.seed) is not int or not 0 <= config.seed < 2**32:
            raise InputError(
                f"seed={config.seed} must be a whole number from 0 to {2**32 - 1}",
                "give e.g. seed=0",
            )
        if settings.mode == RunMode.MULTIRUN and done(
            Run(folder), OmegaConf.to_yaml(config, resolve=True)
        ):
            log.info("%s is finished: skipped.", folder)
            return 0
    apart = (
        settings.mode == RunMode.MULTIRUN and "joblib" in settings.launcher["_target_"]
    )  # a killed worker would end the others
    if ((count := processes(config.trainer)) > 1 or apart) and not is_launched(os.environ):
        own = [
            f"--config-dir={source.path}"
            for source in settings.runtime.config_sources
            if source.provider == "command-line"
        ]
        place = ["hydra.mode=RUN", f"hydra.run.dir={quote(folder)}"]
        return launch(["-m", "fmsd", "train", *settings.overrides.task, *place, *own], count)
    task.train(
        training.Request(
            name=config["choices"]["method"],
            folder=folder,
            config=OmegaConf.to_yaml(config, resolve=True),
            command=sys.argv,
            overrides=list(config.overrides),
            choices=OmegaConf.to_container(config.choices),  # pyright: ignore[reportArgumentType]
        ),
        training.Components(
            detector=build(config.backbone),
            method=build(config.method),
            wrapper=build(config.wrapper),
            optimizer=build(config.optimizer),
            schedule=build(config.schedule),
            data=data_factory(config.data),
            trainer=build(config.trainer),
            loggers=loggers(config.logger),
        ),
        training.Plan(
            **{field.name: config[field.name] for field in dataclasses.fields(training.Plan)}
        ),
        training.LearnerSettings(**config.learner),
    )
    return 0


def processes(trainer: DictConfig) -> int:
    """How many processes of this machine a trainer asks for.

    Raises:
        InputError: it asks for several machines, and nothing has started a process for each of
            their devices.
    """
    from fmsd.engine.launcher import device_indices, is_launched

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
        return max(1, torch.accelerator.device_count())
    return len(device_indices(devices)) or int(devices)


def evaluate(config: DictConfig, folder: Path) -> None:
    """fmsd evaluate: tests a run's weights, by default on the data and the trainer of its training."""
    from fmsd.data.loading.corruptions import parse_corruptions
    from fmsd.tasks import evaluate as task

    run, whole = trained(config, "evaluate", ("backbone", "seed"))
    wanted: Any = OmegaConf.to_container(config)
    corruptions = parse_corruptions(wanted["corrupt"], wanted["severities"])
    whole.run = str(run.folder)
    if corruptions:
        whole.corrupt, whole.severities = wanted["corrupt"], wanted["severities"]
    task.evaluate(
        run=run,
        detector=build(whole.backbone),
        data=build_data(whole.data),
        trainer=build(whole.trainer),
        folder=folder,
        config=OmegaConf.to_yaml(whole, resolve=True),
        command=sys.argv,
        corruptions=corruptions,
        logger=loggers(used_loggers(whole.get("logger"), config.trust, run.folder)),
    )


def explain(config: DictConfig, folder: Path) -> None:
    """fmsd explain: draws where a run's detector looks, by default on the data of its training."""
    from fmsd.tasks import explain as task

    run, whole = trained(config, "explain", ("backbone",))
    data, out = build_data(whole.data), run.folder / EXPLANATIONS
    if config.out is not None:
        out = Path(located(config.out))
    elif config.data is not None:
        out /= "_".join(data.selection.tests)
    task.explain(
        run=run,
        detector=build(whole.backbone),
        data=data,
        trainer=build(whole.trainer),
        out=out,
        **{name: config[name] for name in ("images", "frames", "how", "layer", "seed", "domains")},
    )


def fold(config: DictConfig, folder: Path) -> None:
    """fmsd fold: writes a run's dense weights."""
    from fmsd.tasks import fold as task

    run = Run(Path(config.run).expanduser().absolute())
    check_record(run)
    backbone = OmegaConf.merge(
        load_run_config(run.config, config.trust), {"backbone": based(config.base)}
    ).backbone
    task.fold(run, build(backbone), Path(config.out).expanduser())


def index(config: DictConfig, folder: Path) -> None:
    """fmsd index: writes a manifest."""
    from fmsd.tasks import index as task

    absolute(config.data)
    task.index(build_selection(config.data), Path(config.out).expanduser())


def extract(config: DictConfig, folder: Path) -> int:
    """fmsd extract: writes face crops and their manifest."""
    from fmsd.data.extraction.crops import Recipe
    from fmsd.data.processes import available_cores
    from fmsd.tasks import extract as task

    unread = ("data.frames", "data.train_frames", "data.manifest", "data.sampling")
    if idle := [
        word for word in HydraConfig.get().overrides.task if word.lstrip("+~").startswith(unread)
    ]:
        raise InputError(
            f"{', '.join(idle)} would have no effect: extract reads the videos themselves",
            "give frames=, sampling= and data.videos=",
        )
    absolute(config.data)
    check_outside(located(config.out), config.data)
    failures = task.extract(
        data=build_selection(config.data),
        detector=build(config.detector),
        recipe=Recipe(**{field.name: config[field.name] for field in dataclasses.fields(Recipe)}),
        out=Path(located(config.out)),
        shard=part(config.shard, config.shards),
        workers=available_cores() if config.workers is None else config.workers,
    )
    return 1 if failures else 0


def part(shard: str | int | None, shards: int | None) -> tuple[int, int]:
    """(number, of how many) from shard=i/n, or from shard=i shards=n.

    Raises:
        InputError: it is written otherwise.
    """
    if shard is None and shards is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", f"{shard}" if shards is None else f"{shard}/{shards}")
    if match is None:
        raise InputError(
            f"shard={shard} shards={shards} is no part of the videos",
            "give shard=0/8, or shard=0 shards=8",
        )
    return int(match[1]), int(match[2])


def pack(config: DictConfig, folder: Path) -> None:
    """fmsd pack: writes images into tars."""
    from fmsd.tasks import pack as task

    absolute(config.data)
    check_source(config.data, HydraConfig.get().overrides.task)
    check_outside(located(config.out), config.data)
    task.pack(build_selection(config.data), Path(located(config.out)), config.size)


def doctor(config: DictConfig, folder: Path) -> int:
    """fmsd doctor: says what is wrong with a copy of a dataset."""
    from fmsd.tasks import doctor as task

    absolute(config.data)
    check_source(config.data, HydraConfig.get().overrides.task)
    return (
        0
        if task.doctor(
            build_selection(config.data),
            Path(config.out).expanduser(),
            config.frames,
            config.limit,
            config.workers,
        )
        else 1
    )


def report(config: DictConfig, folder: Path) -> None:
    """fmsd report: many runs as tables and one page."""
    from fmsd.tasks import report as task

    out = None if config.out is None else Path(config.out).expanduser()
    differ = [config.differ] if isinstance(config.differ, str) else list(config.differ)
    task.report(
        Path(config.runs).expanduser(),
        config.metric,
        out,
        config.by,
        config.against,
        differ,
        config.resamples,
    )


def reproduce(words: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """fmsd reproduce: runs other verbs, one after the other, each with a configuration of its own.

    Args:
        run: runs a command line and returns its exit code.
    """
    from fmsd.tasks import reproduce as task

    settings = yaml.safe_load((CONF / "reproduce.yaml").read_text(encoding="utf-8"))
    steps, values = settings.pop("steps"), {name: str(value) for name, value in settings.items()}
    names = [word for word in words if re.fullmatch(r"\w+", word)]
    own = {key: value for key, _, value in (word.partition("=") for word in words) if key in values}
    rest = [word for word in words if word not in names and word.partition("=")[0] not in values]
    if len(names) != 1 or names[0] not in steps:
        what = (
            f"There is no table {' '.join(names)}" if names else "A table to reproduce is missing"
        )
        raise InputError(what, f"give the name of one: {', '.join(steps)}")
    if idle := [key for key in own if f"{{{key}}}" not in " ".join(steps[names[0]])]:
        raise InputError(
            f"{idle[0]}={own[idle[0]]} would have no effect: no command of the table {names[0]} "
            "has it",
            "leave it out",
        )
    values |= own
    values["out"] = str(Path(values["out"].replace("{name}", names[0])).expanduser())
    return task.reproduce(
        names[0], steps[names[0]], values, rest, run, CONF / "experiments" / f"{names[0]}.csv"
    )


def dashboard(config: DictConfig, folder: Path) -> None:
    """fmsd dashboard: saves a view of a project on Weights & Biases."""
    from fmsd.tracking import dashboard as task

    task.dashboard(config.entity, config.project, config.name)


VERBS: dict[str, Callable[[DictConfig, Path], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "explain": explain,
    "fold": fold,
    "merge": merge,
    "extract": extract,
    "index": index,
    "doctor": doctor,
    "pack": pack,
    "report": report,
    "dashboard": dashboard,
}
