"""The configuration of an existing run, with the overrides of the command line applied."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmsd.cache import cache_folder
from fmsd.cli.data_config import absolute_path, add_test_sources, check_source
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.recorded_config import check_complete, give_again
from fmsd.cli.run_loggers import foreign_destinations, trust_option
from fmsd.cli.run_places import run_folder
from fmsd.cli.trust import load_run_config
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.quoting import shell_override
from fmsd.redaction import COMPUTED
from fmsd.runs.configuration import first_difference
from fmsd.runs.folder import MASK, Run, check_weights

log = logging.getLogger(__name__)

WRITTEN_FOLDERS = ("checkpoints", "logs", "explanations", "predictions", "evaluations")
"""Folders of a run that verbs write into."""


def check_links(folder: Path) -> None:
    """Rejects a run with links that lead out of its folder: writing would replace other files."""
    home = folder.resolve()
    inside = (path for name in WRITTEN_FOLDERS for path in (folder / name).rglob("*"))
    for path in itertools.chain(folder.iterdir() if folder.is_dir() else (), inside):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise InputError(
                f"{path} is a link that leads out of the run, to {path.resolve()}",
                "put what it leads to in its place",
            )


def check_run_record(run: Run) -> None:
    """Rejects a run whose `run.json` lacks the keys that every verb about a run needs.

    Also one whose configuration is not the one that the record knows. Warns of a training that was
    interrupted.
    """
    record = run.record(complete=True)
    run.check(run.config.name)
    if record.get("finished") is False:
        log.warning(
            "The training in %s was interrupted, so these are not its final weights, and fmsd "
            "report leaves their tests out; finish it with fmsd train %s.",
            run.folder,
            shell_override("resume", run.folder),
        )


def load_finished_run(
    config: DictConfig, verb: str, fixed: tuple[str, ...]
) -> tuple[Run, DictConfig]:
    """A finished run, and its configuration with command-line overrides applied.

    Args:
        fixed: prefixes of keys that cannot be overridden.

    Raises:
        InputError: there is no such run, an override would change it, or it has no data.
    """
    run = Run(run_folder(config.run))
    overrides = task_overrides()
    check_run_record(run)
    if not is_address(config.run):  # nothing is written into the cache, whose files are links
        check_links(run.folder)
    if forbidden := [override for override in overrides if override.lstrip("+").startswith(fixed)]:
        raise InputError(
            f"{', '.join(forbidden)} would change the run itself, which {verb} takes as it was "
            "trained",
            "leave it out (base=PATH sets where its base weights lie)",
        )
    loaded = load_run_config(run.config, config.trust)
    given = give_again(loaded, overrides)
    if idle := [key for key in override_keys(overrides, "logger.") if key not in given]:
        raise InputError(
            f"{idle[0]} would have no effect: the run's loggers are used as they were configured",
            f"leave it out; only a value that {run.config} holds without its password or token is "
            "given again",
        )
    relocate_embedded_data(loaded)
    run_config = with_overrides(loaded, config)
    check_complete(run_config, ("backbone.", "data.", "trainer."), run.config)
    if run_config.data is None:
        how = "imported" if "imported" in run.record() else "merged from files"
        raise InputError(
            f"The run in {run.folder} was {how} and has no data of its own",
            "give data=NAME",
        )
    check_source(run_config.data, overrides)
    return run, run_config


def override_keys(overrides: Sequence[str], prefix: str) -> list[str]:
    """The dotted keys of overrides that begin with a prefix."""
    keys = (override.partition("=")[0].lstrip("+") for override in overrides)
    return [key for key in keys if key.startswith(prefix)]


def relocate_embedded_data(run: DictConfig) -> None:
    """Points the embedded dataset of a loaded run to the cache unless it exists where it was."""
    from fmsd.data.synthetic.plan import DRAWING_VERSION

    data = run.data
    if data is not None and data.source["_target_"] == "fmsd.data.sources.synthetic.scan":
        folder = f"synthetic-v{DRAWING_VERSION}"
        exists = data.root is not None and (Path(data.root) / folder).is_dir()
        data.root = data.root if exists else str(cache_folder())


def base_override(base: str | None) -> dict[str, Any]:
    """Backbone settings that load the pretrained weights from `base`; none if it is None."""
    return {} if base is None else {"pretrained": False, "weights": absolute_path(base)}


def with_overrides(run: Any, config: DictConfig) -> Any:
    """A run's configuration with the base, data and trainer of the command line applied.

    Raises:
        InputError: a suite without data, or see `fmsd.cli.suites.check_suite`.
    """
    result: Any = OmegaConf.merge(run, {"backbone": base_override(config.base)})
    for key in ("data", "trainer"):
        if config[key] is not None and "_target_" in config[key]:
            result[key] = config[key]  # replaced, not merged: another dataset has another source
        elif config[key] is not None and result[key] is not None:
            result[key] = OmegaConf.merge(
                result[key], config[key]
            )  # as trainer=smoke sets data keys
            if "test" in config[key] and "suite" not in config[key]:
                result[key].pop("suite", None)  # that of the run
        elif config[key] is not None and "suite" in config[key]:
            raise InputError(
                f"suite={config[key].suite} would have no effect: there is no data to test on",
                "give data=NAME",
            )
    if result.data is not None:
        add_test_sources(result.data)
    for key in ("choices", "overrides"):  # of the run, not of this command
        result.pop(key, None)
    return result


def is_finished(run: Run, config: str) -> bool:
    """Whether a job of a sweep is finished already.

    Args:
        config: the job's resolved configuration, as YAML.

    Raises:
        InputError: the folder holds a finished run of another configuration.
    """
    if not run.finished:
        return False
    if key := first_difference(run.config.read_text(encoding="utf-8"), config):
        raise InputError(
            f"{run.folder} holds a finished run that differs from this one in {key}",
            "begin a new sweep with hydra.sweep.dir=FOLDER",
        )
    return True


def load_interrupted_run(
    folder: Path, overrides: Sequence[str], trust: object = ()
) -> tuple[DictConfig, Path]:
    """The configuration and the folder of a run that was interrupted.

    Args:
        trust: what the configuration may name beside the declared targets, see `fmsd.cli.trust`.

    Raises:
        InputError: there is no such run, it is finished, or there are other overrides.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise InputError(
            f"{folder} is not the folder of a run (it has no config.yaml)",
            "give the folder that training began to write",
        )
    if run.finished:
        check_weights(folder, run.record())
    check_links(folder)
    run.check(run.config.name, MASK)
    config = load_run_config(run.config, trust)
    if "merger" in config:
        raise InputError(
            f"The run in {folder} was merged, not trained, so there is nothing to go on with",
            "merge anew into another folder",
        )
    if run.finished:
        raise InputError(
            f"The run in {folder} is finished",
            f"test it again with fmsd evaluate {shell_override('run', folder)}",
        )
    given = give_again(config, overrides)
    if surplus := [
        override
        for override in overrides
        if override.partition("=")[0].lstrip("+") not in ("resume", "trust", *given)
    ]:
        raise InputError(
            f"{', '.join(surplus)} would change the run, which goes on as it was configured",
            "leave it out",
        )
    plain: Any = OmegaConf.to_container(config)
    kinds = {"choices": dict, "overrides": list}
    if missing := [key for key, kind in kinds.items() if not isinstance(plain.get(key), kind)]:
        raise InputError(
            f"{run.config} is no configuration of a training (it has no {missing[0]})",
            "put it back, or train anew",
        )
    if destinations := foreign_destinations(config.get("logger"), trust, given):
        name, setting = next(iter(destinations.items()))
        raise InputError(
            f"{run.config} sets where results are sent ({setting})",
            f"if they shall go there, give {trust_option(config.logger[name], setting)}",
        )
    check_complete(config, [f"{group}." for group in (*COMPUTED, "logger")], run.config)
    return config, folder
