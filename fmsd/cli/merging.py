"""The verb merge: composes the configuration of a merged run from those of its experts."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmsd.cli.build import build, build_data
from fmsd.cli.conf_files import read_conf_file
from fmsd.cli.hydra_compat import parse_value, task_overrides
from fmsd.cli.loaded_runs import check_run_record, is_finished, with_overrides
from fmsd.cli.recorded_config import recorded_config
from fmsd.cli.run_places import exact_word, run_folder
from fmsd.cli.trust import check_loaded, load_run_config, trusted_prefixes
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.names import check_label
from fmsd.package_files import CONF
from fmsd.runs.folder import Run

log = logging.getLogger(__name__)


def merge(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd merge: writes a merged run; by default it is tested on the data of the first run."""
    from fmsd.merge.record import RECORD
    from fmsd.peft import experts as merged_experts
    from fmsd.tasks import merge as task

    settings = HydraConfig.get()
    check_label(config.label)
    overrides, multirun = task_overrides(), settings.mode == RunMode.MULTIRUN
    if multirun and any(override.startswith("out=") for override in overrides):
        raise InputError(
            "The merges of a sweep cannot all lie in out=PATH", "give hydra.sweep.dir=FOLDER"
        )
    if config.add is not None or config.to is not None:
        run, before = extend_merge(config, overrides)
        choices = run.choices
    else:
        run, before = combine_experts(config, overrides), None
        chosen = ("merger", "backbone") if is_backbone_chosen(overrides) else ("merger",)
        named = {group: settings.runtime.choices[group] for group in chosen}
        choices = {group: choice for group, choice in named.items() if choice is not None}
    merged_config, grid = complete_merge(run, config, choices, overrides)
    text = recorded_config(merged_config)
    if multirun and is_finished(Run(folder), text):
        Run(folder).check(RECORD)
        merged_experts.check_unchanged(folder)
        log.info("%s is finished: skipped.", folder)
        return
    data = merged_config.data
    if data is not None and not config.test:
        data = OmegaConf.merge(merged_config, {"data": {"test": []}}).data
    task.merge(
        detector=build(merged_config.backbone),
        merger=build(merged_config.merger),
        experts=[run_folder(word) for word in merged_config.experts],
        data=None if data is None else build_data(data),
        trainer=build(merged_config.trainer),
        folder=folder,
        config=text,
        command=command,
        overrides=overrides,
        choices=choices,
        seed=merged_config.seed,
        grid=grid,
        before=before,
        ceiling=[run_folder(word) for word in merged_config.ceiling]
        if merged_config.get("ceiling")
        else None,
        overlap=config.overlap,
        coverage=config.coverage,
        label=config.label,
    )


def complete_merge(
    run: Any, config: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Any, dict[str, list[Any]] | None]:
    """The complete configuration of a merged run, and the values of a search or None.

    Args:
        run: from `combine_experts` or `extend_merge`.
        config: of the command line.
        choices: the choice of each group, for the run's record.

    Raises:
        InputError: a path that does not exist, or half of the settings of a search.
    """
    merged_config = with_overrides(run, config)
    if merged_config.data is not None and config.on is not None:
        merged_config.data.train = _as_list(config.on)
    if config.ceiling is not None:
        merged_config.ceiling = existing_paths(_as_list(config.ceiling), "ceiling")
    grid = None if config.search is None else parse_search(config.search)
    if (grid is None) != (config.on is None):
        raise InputError(
            "A search needs both, its values and the data whose validation split chooses",
            "give search='NAME=VALUES ...' and on=DATASET (or on=[A,B])",
        )
    merged_config.search, merged_config.test = config.search, config.test
    merged_config.choices, merged_config.overrides = choices, overrides
    if config.label is not None:
        merged_config.label = config.label
    return merged_config, grid


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def combine_experts(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a merge of `experts`: backbone, data and trainer of their runs.

    Raises:
        InputError: too few experts, one that does not exist, different backbones, or files alone
            without a backbone.
    """
    from fmsd.peft import experts as merged_experts

    paths = _as_list(config.experts) or []
    merged_experts.check_count([Path(path) for path in map(exact_word, paths)])
    experts = existing_paths(paths, "experts")
    places = map(run_folder, experts)
    folders = [Run(place) for place in places if place.is_dir()]
    chosen = is_backbone_chosen(overrides)
    if not folders and config.backbone is None:
        raise InputError(
            "The experts are files, which do not hold their network's configuration",
            "give backbone=NAME, and base=PATH for the weights they began with",
        )
    run = OmegaConf.create(settings_of_experts(folders, config.trust))
    if run.data is not None:  # the forgeries of one expert are not those of the merge
        run.data.train_forgeries = None
        run.data.left_out = None
    run.merger, run.experts = config.merger, experts
    if chosen or not folders:
        run.backbone = config.backbone
    if config.seed is not None:
        run.seed = config.seed
    imported = [one.folder for one in folders if "imported" in one.record()]
    random = run.backbone.get("weights") is None and not run.backbone.get("pretrained")
    if imported and random and config.base is None:
        raise InputError(
            f"{imported[0]} was imported: it has no base weights, and a merge is made of the "
            "changes to them",
            "give base=PATH, the pretrained weights that it was trained from",
        )
    return run


def is_backbone_chosen(overrides: Sequence[str]) -> bool:
    """Whether the command line chooses a backbone; one that a data file brings is not chosen."""
    choices = HydraConfig.get().runtime.choices
    if any(override.lstrip("+").startswith("backbone") for override in overrides):
        return True
    return choices["backbone"] is not None and choices["data"] is None


def settings_of_experts(runs: Sequence[Run], trust: object) -> dict[str, Any]:
    """Backbone, data, trainer and seed of the first run; data of the first run that has any.

    Args:
        trust: see `fmsd.cli.trust`.

    Raises:
        InputError: a run is damaged, or two have different backbones.
    """
    trainer = read_conf_file(CONF / "trainer" / "default.yaml").values
    merged: dict[str, Any] = {"data": None, "trainer": trainer, "seed": 0}
    for run in reversed(runs):
        check_run_record(run)
        loaded: Any = load_run_config(run.config, trust)
        known = merged.get("backbone", loaded.backbone)
        if known.get("padding") != loaded.backbone.get("padding"):
            raise InputError(
                f"{run.folder} has backbone.padding={loaded.backbone.get('padding')}, another "
                f"expert {known.get('padding')}",
                "merge experts of one backbone",
            )
        if "backbone" in merged and merged["backbone"].name != loaded.backbone.name:
            raise InputError(
                f"{run.folder} was trained from {loaded.backbone.name}, another expert from "
                f"{merged['backbone'].name}",
                "merge experts of one backbone",
            )
        merged |= {
            "backbone": loaded.backbone,
            "data": loaded.data or merged["data"],
            "trainer": loaded.trainer,
            "seed": run.record()["seed"],
        }
    return merged


def existing_paths(paths: Sequence[str], key: str) -> list[str]:
    """Absolute paths of runs and files, and addresses of runs on the Hub with their commit.

    Args:
        key: the key that names them, for the message.

    Raises:
        InputError: a path does not exist, or there is no such run on the Hub.
    """
    absolute = [exact_word(path) for path in paths]
    if missing := [path for path in absolute if not (is_address(path) or os.path.lexists(path))]:
        raise InputError(
            f"There is no weights file and no run {missing[0]}", f"correct {key}='[...]'"
        )
    return absolute


def extend_merge(config: DictConfig, overrides: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration of a merge with one more expert, and the record of the merge without it.

    Raises:
        InputError: one of `add` and `to` is missing, no merged run, or an override that would
            change the recipe.
    """
    from fmsd.merge.record import RECORD, read_merge_record

    if config.add is None or config.to is None:
        raise InputError(
            "Adding a specialist needs the specialist and the merge",
            "give add=RUN_OR_FILE and to=MERGED",
        )
    fixed = ("merger", "experts", "experiments", "backbone", "search", "on=", "seed")
    if forbidden := [override for override in overrides if override.lstrip("+~").startswith(fixed)]:
        raise InputError(
            f"{', '.join(forbidden)} would change the recipe of {config.to}",
            "leave it out, or merge anew with experts='[...]'",
        )
    path = run_folder(config.to)
    Run(path).check("config.yaml", RECORD)
    if not (path / RECORD).is_file():
        raise InputError(
            f"{path} is not a merged run (it has no {RECORD})",
            "give the folder that fmsd merge printed at its end",
        )
    run_file = Run(path).config
    run = load_run_config(run_file, config.trust)
    record = read_merge_record(path / RECORD)
    experts = run.get("experts")
    if run.get("merger") is None or len(experts or ()) != len(record["experts"]):
        raise InputError(
            f"{run_file} is not the configuration of the merge that {RECORD} beside it describes",
            "put back both, or merge anew",
        )
    run.experts = [*experts, exact_word(config.add)]
    coefficients = {name: value for name, value in record["merger"].items() if name != "name"}
    merger = {"_target_": run.merger["_target_"]} | coefficients  # as a search chose them
    check_loaded({"merger": merger}, path / RECORD, trusted_prefixes(config.trust))
    run.merger = merger
    return run, record


def parse_search(text: str) -> dict[str, list[Any]]:
    """The values to try of each coefficient, from `alpha=0.4,0.6 ratio=0.1,0.2`.

    Raises:
        InputError: the text has another form, or a name twice.
    """
    grid: dict[str, list[Any]] = {}
    for assignment in str(text).split():
        name, sign, values = assignment.partition("=")
        if not (name and sign and all(values.split(","))) or name in grid:
            raise InputError(
                f"search={text!r} is not of the form 'alpha=0.4,0.6 ratio=0.1,0.2', each name once",
                "correct it",
            )
        grid[name] = [parse_value(value) for value in values.split(",")]
    return grid
