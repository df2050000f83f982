"""Checks which code the configuration of a loaded run may call.

The command line and its configuration files are the user's own and may name anything that Python
can import. The `config.yaml` of a run may come from a stranger, in a downloaded folder. It may name
the targets that the YAML files of fmsd and of the installed plugins declare, at the same places,
with arguments that only set how they compute. `trust='[mypkg.]'` also allows the user's own
packages.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmsd.cli.build import LOADER_KEYS
from fmsd.cli.conf_files import KeyPath, dotted_key, read_conf_file, walk
from fmsd.cli.declared_targets import GROUPS, Declaration, declared_key_path, declared_targets
from fmsd.cli.recorded_config import check_lookups
from fmsd.errors import InputError
from fmsd.json_records import check_record
from fmsd.package_files import CONF
from fmsd.runs.configuration import RunSettings
from fmsd.safe_yaml import parse_settings

REQUIRED = ("backbone", "data", "trainer")
"""Keys that every configuration of a run has."""

TRAINER_ARGUMENTS = {
    "accelerator", "devices", "num_nodes", "strategy", "precision", "sync_batchnorm",
    "use_distributed_sampler", "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time",
    "fast_dev_run", "overfit_batches", "limit_train_batches", "limit_val_batches",
    "limit_test_batches", "limit_predict_batches", "reload_dataloaders_every_n_epochs",
    "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps",
    "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "deterministic",
    "benchmark", "inference_mode", "detect_anomaly", "enable_autolog_hparams",
    "enable_checkpointing", "enable_model_summary", "enable_progress_bar",
}  # fmt: skip
"""Arguments of Lightning's Trainer that only set how it computes.

Others write files, load plugins or send something.
"""


def load_run_config(path: Path, trust: object = (), built: Sequence[str] = GROUPS) -> DictConfig:
    """The configuration of a run, checked before anything is built from it.

    Args:
        path: its `config.yaml`.
        trust: prefixes of names it may call beside the declared targets, see `trusted_prefixes`.
        built: the groups that are built; only their targets are imported, to check arguments.

    Raises:
        InputError: the file is missing or damaged, or `check_loaded` rejects it.
    """
    allowed = trusted_prefixes(trust)
    if not path.is_file():
        raise InputError(
            f"{path.parent} is not the folder of a run (it has no {path.name})",
            "give the folder that training printed at its end",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no configuration (it is not UTF-8)", "put it back, or remove it"
        ) from error
    settings = parse_settings(text, path)
    check_record(settings, RunSettings, path, "put it back, or train anew")
    try:
        config = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(
            f"{path} is no configuration ({' '.join(str(error).split())})",
            "put it back, or remove it",
        ) from error
    assert isinstance(config, DictConfig)  # as `parse_settings` found
    if missing := [key for key in REQUIRED if key not in config]:
        raise InputError(
            f"{path} is no configuration of a run (it has no {missing[0]})",
            "put it back, or train anew",
        )
    check_loaded(OmegaConf.to_container(config), path, allowed, built)
    return config


def trusted_prefixes(trust: object) -> tuple[str, ...]:
    """The prefixes of dotted names that the key `trust` lists.

    Raises:
        InputError: one of them is not a package name with a final dot.
    """
    prefixes = [trust] if isinstance(trust, str) else list(trust or ())  # pyright: ignore[reportArgumentType]
    for prefix in prefixes:
        if not (isinstance(prefix, str) and re.fullmatch(r"([^\W\d]\w*\.)+", prefix)):
            raise InputError(
                f"trust={prefix} is no package with its final dot", "give e.g. trust='[mypkg.]'"
            )
    return tuple(prefixes)


def check_loaded(
    config: Any, source: Path, trust: Sequence[str] = (), built: Sequence[str] = GROUPS
) -> None:
    """Rejects loaded settings other than plain values and declared targets at their key paths.

    Nothing that is not trusted is imported or called.

    Args:
        config: a whole configuration, or one with some of its groups.
        source: the file, for the message.
        trust: prefixes of dotted names.
        built: the groups whose arguments are checked, too.

    Raises:
        InputError: a resolver, a key of Hydra, a target or an argument that is not allowed there.
    """
    if present := [key for key in ("defaults", "hydra") if key in config]:
        raise InputError(
            f"{source} has the key {present[0]}, which no run has",
            "take it out if you know this run",
        )
    check_shape(config, source)
    check_declared(config, source, trust)
    for key_path, node in walk(config):
        if isinstance(node, dict):
            check_node(key_path, node, source, trust)
        if not (node is None or isinstance(node, dict | list | str | int | float)):
            raise InputError(
                f"{source} has a {type(node).__name__} at {dotted_key(key_path)}",
                "write a plain value",
            )
        check_lookups(key_path, node, config, source, trust)
    for key_path, node in walk(config):  # only now: this imports targets
        if (
            isinstance(node, dict)
            and "_target_" in node
            and key_path
            and key_path[0] in built
            and not node["_target_"].startswith(tuple(trust))
        ):
            loader_keys = LOADER_KEYS if key_path == ("data",) else ()
            arguments = {key: value for key, value in node.items() if key not in loader_keys}
            declared = declared_targets()[declared_key_path(key_path)][node["_target_"]]
            check_arguments(arguments, declared, dotted_key(key_path), source)


def check_shape(config: Mapping[str, Any], source: Path) -> None:
    """Rejects loaded settings with a group that has no target, or with unknown learner settings."""
    parts = {
        group: config[group]
        for group in GROUPS
        if config.get(group) is not None and group != "logger"
    }
    logger, learner = config.get("logger") or {}, config.get("learner") or {}
    parts |= (
        {f"logger.{name}": node for name, node in logger.items()}
        if isinstance(logger, dict)
        else {"logger": logger}
    )
    if untargeted := [
        name for name, node in parts.items() if not (isinstance(node, dict) and "_target_" in node)
    ]:
        raise InputError(
            f"{source} is no configuration of a run ({untargeted[0]} has no _target_)",
            "put it back, or train anew",
        )
    known = read_conf_file(CONF / "train.yaml").values["learner"]
    unknown = (
        [key for key in learner if key not in known] if isinstance(learner, dict) else [learner]
    )
    if unknown:
        raise InputError(
            f"{source} sets learner.{unknown[0]}, which training does not take", "take it out"
        )


def check_declared(config: Any, source: Path, trust: Sequence[str]) -> None:
    """Rejects loaded settings with targets that neither fmsd nor a plugin declares; names all.

    What is no dotted name is left to `check_node`.
    """
    named = {
        key_path: str(node["_target_"])
        for key_path, node in walk(config)
        if isinstance(node, dict) and is_dotted_name(node.get("_target_"))
    }
    unknown = {
        dotted_key(key_path): target
        for key_path, target in named.items()
        if not target.startswith(tuple(trust))
        and target not in declared_targets().get(declared_key_path(key_path), {})
    }
    if unknown:
        calls = " and ".join(f"{target} for {key}" for key, target in unknown.items())
        packages = ",".join(sorted({f"{package_to_trust(each)}." for each in unknown.values()}))
        raise InputError(
            f"{source} would call {calls}, which neither fmsd nor an installed plugin declares",
            f"install the plugin that does (versions in {source.with_name('run.json')} may name "
            f"it), or if you know that code and trust it, give trust='[{packages}]'",
        )


def is_dotted_name(target: object) -> bool:
    """Whether a value is a name in a module, as a `_target_` is."""
    return isinstance(target, str) and bool(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target))


def check_node(
    key_path: KeyPath, node: Mapping[Any, Any], source: Path, trust: Sequence[str]
) -> None:
    """Rejects a mapping of loaded settings whose target is no name, or comes from elsewhere.

    It may have no other key of Hydra than the file that declares the target, either: `_args_`,
    `_convert_` and so on.
    """
    key = dotted_key(key_path)
    special = {name: value for name, value in node.items() if re.fullmatch(r"_\w+_", str(name))}
    target = special.pop("_target_", None)
    if "_target_" in node and not is_dotted_name(target):
        raise InputError(
            f"{source} has the _target_ {target!r} at {key}, which is no dotted name",
            "correct it",
        )
    if target is not None and target.startswith(tuple(trust)):
        check_home(target, source, trust)
        return
    known = declared_targets().get(declared_key_path(key_path), {})
    invalid = [name for name in special if target is None or name != "_partial_"]
    if target is not None and node.get("_partial_") is not known[target].partial:
        invalid.append(f"_partial_={node.get('_partial_')}")
    if invalid:
        raise InputError(
            f"{source} has {invalid[0]} at {key}, as no installed configuration file has",
            "correct it if you know this run",
        )


def check_home(target: str, source: Path, trust: Sequence[str]) -> None:
    """Rejects a trusted name for something that another package defines, as `mypkg.os.system`.

    A name that cannot be imported passes: building it fails.
    """
    try:
        home = getattr(get_object(target), "__module__", None) or "nowhere"  # a value has none
    except Exception:  # a module of the user may raise anything
        return
    if not f"{home}.".startswith(tuple(trust)):
        raise InputError(
            f"{source} would call {target}, which is defined in {home}",
            f"if you know that code and trust it, give trust='[{home}.]' as well",
        )


def check_arguments(node: Mapping[str, Any], declared: Declaration, key: str, source: Path) -> None:
    """Rejects arguments that a declared target does not take, or that let it do more than compute.

    Args:
        key: the dotted key of `node`.
    """
    target = node["_target_"]
    arguments = {
        str(name): value for name, value in node.items() if name not in ("_target_", "_partial_")
    }
    try:
        inspect.signature(get_object(target)).bind_partial(**arguments)
    except TypeError as error:
        raise InputError(
            f"{source} does not fit {target} at {key} ({' '.join(str(error).split())})",
            "correct these keys",
        ) from error
    if harmful := [
        name
        for name, value in arguments.items()
        if value is not None and not is_harmless(target, declared, name, value)
    ]:
        raise InputError(
            f"{source} sets {key}.{harmful[0]}, which could do more than compute",
            f"take it out, or give trust='[{target.rpartition('.')[0]}.]' if the run is your own",
        )


def is_harmless(target: str, declared: Declaration, name: str, value: Any) -> bool:
    """Whether an argument of a declared target only sets how it computes.

    A plugin answers for the arguments that its configuration files set, and for the parameters of
    its own functions. Where loggers send results is checked by `fmsd.cli.run_loggers`, when they
    are used.
    """
    if declared.plugin is not None:
        return name in declared.arguments or (
            declared.plugin.owns(target)
            and name in inspect.signature(get_object(target)).parameters
        )
    if target == "lightning.pytorch.Trainer":
        return name in TRAINER_ARGUMENTS
    if target == "fmsd.engine.distributed.UnwrappedDDPStrategy":
        return name == "process_group_backend"
    if target == "fmsd.models.detector.detector":
        # Other arguments go to timm, which loads and unpickles files that some of them name
        import timm
        from timm.models import build_model_with_cfg

        known = inspect.signature(get_object(target)).parameters
        loading = {
            *inspect.signature(timm.create_model).parameters,
            *inspect.signature(build_model_with_cfg).parameters,
            "pruned",
        }
        return name in known or (
            name not in loading and not name.startswith("feature") and is_plain(value)
        )
    return True


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a bool or a text, or a list of them."""
    return (
        all(map(is_plain, value))
        if isinstance(value, list)
        else isinstance(value, str | int | float)
    )


def package_to_trust(target: str) -> str:
    """The package of a target, as `trust` lists it; inside this package, the module."""
    top = target.partition(".")[0]
    return target.rpartition(".")[0] if top == "fmsd" else top
