"""The verb merge: from experts, or from a merge and one more, to the configuration of a merged run."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmsd.cli.build import build, build_data
from fmsd.cli.compose import asked, check_record, done, located
from fmsd.cli.trust import check_loaded, load_run_config, prefixes
from fmsd.errors import InputError, reason
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)


def merge(config: DictConfig, folder: Path) -> None:
    """Runs `fmsd merge`; by default it tests on the data of the first run among the experts."""
    from fmsd.peft import experts as merged_experts
    from fmsd.tasks import merge as task

    settings, before = HydraConfig.get(), None
    if settings.mode == RunMode.MULTIRUN and any(
        word.startswith("out=") for word in settings.overrides.task
    ):
        raise InputError(
            "The merges of a sweep cannot all lie in out=PATH", "give hydra.sweep.dir=FOLDER"
        )
    words, choices = list(settings.overrides.task), {"merger": settings.runtime.choices["merger"]}
    if config.add is not None or config.to is not None:
        run, before = earlier(config, words)
        choices = run.choices
    else:
        given = [config.experts] if isinstance(config.experts, str) else config.experts or []
        merged_experts.check_count([Path(os.path.normpath(located(path))) for path in given])
        experts = existing(given, "experts")
        folders = [Run(Path(path)) for path in experts if Path(path).is_dir()]
        plain = hydra.compose(
            "merge", [word for word in words if word.startswith("data=")]
        ).backbone  # data may bring a backbone of its own
        chosen = config.backbone != plain or any(
            word.lstrip("+").startswith("backbone") for word in words
        )
        if not folders and config.backbone is None:
            raise InputError(
                "The experts are files, which do not tell their network",
                "give backbone=NAME, and base=PATH for the weights they began with",
            )
        run: Any = {"data": None, "trainer": hydra.compose("train").trainer, "seed": 0}
        for one in reversed(folders):  # the first one counts, but for data that it has not
            check_record(one)
            seed = one.record()["seed"]
            own: Any = load_run_config(one.config, config.trust)
            if "backbone" in run and run["backbone"].name != own.backbone.name:
                pair = (
                    f"{one.folder} was trained from {own.backbone.name}, another expert from "
                    f"{run['backbone'].name}"
                )
                raise InputError(pair, "merge experts of one backbone")
            run |= {
                "backbone": own.backbone,
                "data": own.data or run["data"],
                "trainer": own.trainer,
                "seed": seed,
            }
        run = OmegaConf.create(run)
        if run.data is not None:
            run.data.train_forgeries, run.data.left_out = (
                None,
                None,
            )  # what an expert was trained on says nothing about the merge
        run.merger, run.experts = config.merger, experts
        if chosen or not folders:
            run.backbone = config.backbone
        if config.seed is not None:
            run.seed = config.seed
    whole = asked(run, config)
    if whole.data is not None:
        whole.data.train = (
            whole.data.train
            if config.on is None
            else [config.on]
            if isinstance(config.on, str)
            else config.on
        )
    if config.ceiling is not None:
        whole.ceiling = existing(
            [config.ceiling] if isinstance(config.ceiling, str) else config.ceiling, "ceiling"
        )
    grid = None if config.search is None else searched(config.search)
    if (grid is None) != (config.on is None):
        raise InputError(
            "A search needs both, its values and the data whose validation split chooses",
            "give search='NAME=VALUES ...' and on=DATASET (or on=[A,B])",
        )
    whole.search, whole.test, whole.choices, whole.overrides = (
        config.search,
        config.test,
        choices,
        words,
    )
    if settings.mode == RunMode.MULTIRUN and done(
        Run(folder), OmegaConf.to_yaml(whole, resolve=True)
    ):
        merged_experts.check_unchanged(folder)
        log.info("%s is finished: skipped.", folder)
        return
    task.merge(
        detector=build(whole.backbone),
        merger=build(whole.merger),
        experts=[Path(path) for path in whole.experts],
        data=None
        if whole.data is None
        else build_data(
            whole.data if config.test else OmegaConf.merge(whole, {"data": {"test": []}}).data
        ),
        trainer=build(whole.trainer),
        folder=folder,
        config=OmegaConf.to_yaml(whole, resolve=True),
        command=sys.argv,
        overrides=words,
        choices=choices,
        seed=whole.seed,
        grid=grid,
        before=before,
        ceiling=[Path(path) for path in whole.ceiling] if whole.get("ceiling") else None,
    )


def existing(paths: Sequence[str], key: str) -> list[str]:
    """Paths of runs and files, as they hold wherever they are read; links stay, as those of caches have names that tell their format.

    Args:
        key: the key that names them, for the message.

    Raises:
        InputError: one that is not there.
    """
    found = [os.path.normpath(located(path)) for path in paths]
    if gone := [path for path in found if not os.path.lexists(path)]:
        raise InputError(f"There is no weights file and no run {gone[0]}", f"correct {key}='[...]'")
    return found


def earlier(config: DictConfig, words: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration of a merge with one more expert, and the record of the merge without it.

    Raises:
        InputError: half of what is needed, no merged run, or something that would change the
            recipe.
    """
    from fmsd.merge.record import RECORD

    if config.add is None or config.to is None:
        raise InputError(
            "Adding a specialist needs the specialist and the merge",
            "give add=RUN_OR_FILE and to=MERGED",
        )
    fixed = ("merger", "experts", "experiments", "backbone", "search", "on=", "seed")
    if other := [word for word in words if word.lstrip("+~").startswith(fixed)]:
        raise InputError(
            f"{', '.join(other)} would change the recipe of {config.to}",
            "leave it out, or merge anew with experts='[...]'",
        )
    path = Path(located(config.to))
    if not (path / RECORD).is_file():
        raise InputError(
            f"{path} is not a merged run (it has no {RECORD})",
            "give the folder that fmsd merge printed at its end",
        )
    run, record = load_run_config(Run(path).config, config.trust), recorded(path / RECORD)
    run.experts = [*run.experts, os.path.normpath(located(config.add))]
    chosen = {
        name: value for name, value in record["merger"].items() if name != "name"
    }  # as a search chose
    check_loaded(
        {"merger": {"_target_": run.merger["_target_"]} | chosen},
        path / RECORD,
        prefixes(config.trust),
    )
    run.merger = {"_target_": run.merger["_target_"]} | chosen
    return run, record


def recorded(path: Path) -> dict[str, Any]:
    """What a merge wrote about itself.

    Raises:
        InputError: it is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is no JSON ({reason(error)})", "put it back, or merge anew"
        ) from error
    if not (isinstance(record, dict) and isinstance(record.get("merger"), dict)):
        raise InputError(f"{path} is not the record of a merge", "put it back, or merge anew")
    return record


def searched(text: str) -> dict[str, list[Any]]:
    """The values to try of each coefficient, from `alpha=0.4,0.6 ratio=0.1,0.2`.

    Raises:
        InputError: it is written otherwise.
    """
    grid: dict[str, list[Any]] = {}
    for word in str(text).split():
        name, sign, values = word.partition("=")
        if not (name and sign and all(values.split(","))) or name in grid:
            raise InputError(
                f"search={text!r} is not of the form 'alpha=0.4,0.6 ratio=0.1,0.2', each name once",
                "correct it",
            )
        grid[name] = [scalar(value) for value in values.split(",")]
    return grid


def scalar(text: str) -> Any:
    """A value as Hydra reads it on the command line."""
    return OverridesParser.create().parse_override(f"x={text}").value()
