"""One function a verb, which imports its task when it runs."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from fmsd.checks import check_range
from fmsd.cli.build import (
    build,
    build_data,
    build_selection,
    check_argument_types,
    logger_factories,
)
from fmsd.cli.conf_files import read_conf_file
from fmsd.cli.data_config import absolute_path, check_outside, check_source, make_paths_absolute
from fmsd.cli.examining import doctor
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.importing import import_run
from fmsd.cli.loaded_runs import (
    base_override,
    check_run_record,
    load_finished_run,
    override_keys,
)
from fmsd.cli.merging import merge
from fmsd.cli.predicting import demo, predict
from fmsd.cli.recorded_config import check_complete, recorded_config
from fmsd.cli.run_loggers import trusted_loggers
from fmsd.cli.run_places import record_folder, run_folder, whole_folder
from fmsd.cli.scoring import score
from fmsd.cli.training import train
from fmsd.cli.trust import load_run_config
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address, output_folder
from fmsd.package_files import CONF
from fmsd.paths import expand_home
from fmsd.runs.folder import EXPLANATIONS, Run


def evaluate(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd evaluate: tests a run's weights, by default on the data and trainer of its training."""
    from fmsd.data.loading.corruptions import parse_corruptions
    from fmsd.tasks import evaluate as task

    run, run_config = load_finished_run(config, "evaluate", ("backbone", "seed"))
    plain: Any = OmegaConf.to_container(config)
    corruptions = parse_corruptions(plain["corrupt"], plain["severities"])
    run_config.run = run.name
    if corruptions:
        run_config.corrupt, run_config.severities = plain["corrupt"], plain["severities"]
    loggers = trusted_loggers(
        {} if is_address(config.run) else run_config.get("logger"),  # those of its owner
        config.trust,
        run.folder,
        given=override_keys(task_overrides(), "logger."),
    )
    check_complete(run_config, [f"logger.{name}." for name in loggers], run.config)
    run_config.overlap, run_config.coverage = config.overlap, config.coverage
    task.evaluate(
        run=run,
        detector=build(run_config.backbone),
        data=build_data(run_config.data),
        trainer=build(run_config.trainer),
        folder=folder,
        config=recorded_config(run_config),
        command=command,
        corruptions=corruptions,
        logger=logger_factories(loggers),
        **{key: plain[key] for key in ("overlap", "coverage")},
    )


def explain(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd explain: draws attribution maps of a run, by default on the data of its training."""
    from fmsd.tasks import explain as task

    keys = ("images", "frames", "how", "layer", "seed", "domains")
    settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, list(keys)))
    check_argument_types(task.explain, settings, "")
    check_range("seed", config.seed)
    run, run_config = load_finished_run(config, "explain", ("backbone",))
    own_folder = output_folder(run.folder) / EXPLANATIONS
    task.explain(
        run=run,
        detector=build(run_config.backbone),
        data=build_data(run_config.data),
        trainer=build(run_config.trainer),
        out=own_folder if config.out is None else Path(absolute_path(config.out)),
        by_dataset=config.out is None and config.data is not None,
        **settings,
    )


def export(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd export: writes the detector of a run for other programs."""
    from fmsd.tasks import export as task

    values: Any = {"int8": config.int8, "frames": config.frames}
    check_argument_types(task.export, values, "")
    measured = ("data", "trainer", "protocol", "frames")
    idle = [each for each in task_overrides() if each.lstrip("+~").startswith(measured)]
    if idle and not config.int8:
        raise InputError(
            f"{', '.join(idle)} would have no effect: data are for the AUC that int8=true prints",
            "leave it out, or set int8=true",
        )
    out = expand_home(config.out)
    task.check_out(out, config.int8)
    run = Run(run_folder(config.run))
    check_run_record(run)
    loaded = load_run_config(run.config, config.trust, built=("backbone",))
    backbone = OmegaConf.merge(loaded, {"backbone": base_override(config.base)}).backbone
    data = None
    if config.int8:
        _, run_config = load_finished_run(config, "export", ("backbone", "seed"))
        data = build_data(run_config.data)
    task.export(run, build(backbone), out, data=data, **values)


def fold(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd fold: writes the dense weights of a run."""
    from fmsd.tasks import fold as task

    run = Run(run_folder(config.run))
    check_run_record(run)
    loaded = load_run_config(run.config, config.trust, built=("backbone",))
    backbone = OmegaConf.merge(loaded, {"backbone": base_override(config.base)}).backbone
    settings: Any = OmegaConf.to_container(backbone, resolve=True)

    task.fold(run, build(backbone), expand_home(config.out), settings)


def index(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd index: writes a manifest."""
    from fmsd.tasks import index as task

    make_paths_absolute(config.data)
    task.index(build_selection(config.data), expand_home(config.out))


def extract(config: DictConfig, folder: Path, command: list[str]) -> int:
    """fmsd extract: writes face crops and their manifest, or prints how far an extraction is."""
    from fmsd.data.extraction.crops import Recipe
    from fmsd.data.processes import available_cores
    from fmsd.tasks import extract as task

    if config.status is not None:
        task.print_status(Path(absolute_path(config.status)))
        return 0

    unread = ("data.frames", "data.train_frames", "data.manifest", "data.sampling")
    if idle := [
        override for override in task_overrides() if override.lstrip("+~").startswith(unread)
    ]:
        raise InputError(
            f"{', '.join(idle)} would have no effect: extract reads the videos themselves",
            "give frames=, sampling= and data.videos=",
        )
    make_paths_absolute(config.data)
    check_outside(absolute_path(config.out), config.data)
    failures = task.extract(
        data=build_selection(config.data),
        detector=build(config.detector),
        recipe=Recipe(**{field.name: config[field.name] for field in dataclasses.fields(Recipe)}),
        out=Path(absolute_path(config.out)),
        shard=parse_shard(config.shard, config.shards),
        workers=available_cores() if config.workers is None else config.workers,
        mask=config.mask if config.mask in (None, "auto") else absolute_path(str(config.mask)),
    )
    return 1 if failures else 0


def parse_shard(shard: str | int | None, shards: int | None) -> tuple[int, int]:
    """(number, count) of a part of the videos, from shard=i/n, or from shard=i shards=n.

    Raises:
        InputError: `shard` has another form.
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


def pack(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd pack: writes images into tars."""
    from fmsd.tasks import pack as task

    make_paths_absolute(config.data)
    check_source(config.data, task_overrides())
    check_outside(absolute_path(config.out), config.data)
    task.pack(build_selection(config.data), Path(absolute_path(config.out)), config.size)


def roots(config: DictConfig, folder: Path, command: list[str]) -> int:
    """fmsd roots: shows where the datasets lie."""
    from fmsd.cli.roots_table import print_roots

    return 0 if print_roots() else 1


def report(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd report: writes many runs as tables and one page."""
    from fmsd.tasks import report as task

    paths = (config.out, config.attributes)
    out, attributes = (None if path is None else expand_home(path) for path in paths)
    differ = [config.differ] if isinstance(config.differ, str) else list(config.differ)
    against = None if config.against is None else str(config.against)
    runs = config.runs
    if is_address(runs):
        runs = task.check_predictions(whole_folder(runs), runs)
    arguments = (config.metric, out, config.by, against, differ, config.resamples, config.holm)
    task.report(expand_home(runs), *arguments, attributes)


def cite(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd cite: prints or writes the BibTeX of what runs used."""
    from fmsd.tasks import cite as task

    task.cite(
        None if config.run is None else record_folder(config.run),
        None if config.runs is None else record_folder(config.runs),
        None if config.out is None else expand_home(config.out),
    )


def verify(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd verify: compares the files of runs with their records."""
    from fmsd.tasks import verify as task

    task.verify(
        *(None if word is None else whole_folder(word) for word in (config.run, config.runs))
    )


def push(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd push: uploads a run with its model card to the Hugging Face Hub."""
    from fmsd.tasks import push as task

    settings: Any = {key: config[key] for key in ("private", "revision", "predictions")}
    check_argument_types(task.push, settings, "")
    run = Run(run_folder(config.run))
    check_run_record(run)
    load_run_config(run.config, config.trust, built=())
    out = None if config.out is None else Path(absolute_path(config.out))
    task.push(run, str(config.repo), out, licence=config.license, **settings)


def reproduce(arguments: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """fmsd reproduce: runs other verbs, one after the other, each with its own configuration.

    Args:
        arguments: the name of a table, values of `conf/reproduce.yaml`, and overrides of trainings.
        run: runs a command line and returns its exit code.
    """
    from fmsd.tasks import reproduce as task

    settings = read_conf_file(CONF / "reproduce.yaml").values
    steps, values = settings.pop("steps"), {name: str(value) for name, value in settings.items()}
    names = [argument for argument in arguments if re.fullmatch(r"\w+", argument)]
    pairs = (argument.partition("=") for argument in arguments)
    given = {key: value for key, _, value in pairs if key in values}
    train_overrides = [
        argument
        for argument in arguments
        if argument not in names and argument.partition("=")[0] not in values
    ]
    if len(names) != 1 or names[0] not in steps:
        what = (
            f"There is no table {' '.join(names)}" if names else "A table to reproduce is missing"
        )
        raise InputError(what, f"give the name of one: {', '.join(steps)}")
    name = names[0]
    if idle := [key for key in given if f"{{{key}}}" not in " ".join(steps[name])]:
        raise InputError(
            f"{idle[0]}={given[idle[0]]} would have no effect: no command of the table {name} "
            "has it",
            "leave it out",
        )
    values |= given
    values["out"] = str(expand_home(values["out"].replace("{name}", name)))
    recorded = CONF / "experiments" / f"{name}.csv"
    return task.reproduce(name, steps[name], values, train_overrides, run, recorded)


def dashboard(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd dashboard: saves a view of a project on Weights & Biases."""
    from fmsd.tracking import dashboard as task

    task.dashboard(config.entity, config.project, config.name)


class Verb(NamedTuple):
    """A verb.

    Args:
        run: takes the configuration, the output folder and the command line, and of the verbs in
            `fmsd.cli.file_words` the files; returns the exit code, or None for 0.
        lightning: whether its task uses Lightning.
    """

    run: Callable[..., int | None]
    lightning: bool = False


VERBS = {
    "train": Verb(train, lightning=True),
    "evaluate": Verb(evaluate, lightning=True),
    "explain": Verb(explain, lightning=True),
    "predict": Verb(predict),
    "demo": Verb(demo),
    "export": Verb(export, lightning=True),
    "fold": Verb(fold),
    "import": Verb(import_run, lightning=True),
    "score": Verb(score, lightning=True),
    "merge": Verb(merge, lightning=True),
    "extract": Verb(extract),
    "index": Verb(index),
    "doctor": Verb(doctor),
    "pack": Verb(pack),
    "roots": Verb(roots),
    "report": Verb(report),
    "verify": Verb(verify),
    "push": Verb(push),
    "cite": Verb(cite),
    "dashboard": Verb(dashboard),
}
"""The verbs that Hydra configures; `reproduce` runs them."""
