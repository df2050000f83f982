"""What the configuration of a run that is read from its folder may build.

The command line and its configuration files are the user's own and may name anything that Python
can import. The `config.yaml` of a run may be a stranger's: a downloaded folder. It may name the
targets that the packaged YAML files name, at the places where they name them, with arguments that
only set how they compute. `trust='[mypkg.]'` adds the user's own packages to them.
"""

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmsd.cli.build import loader_keys
from fmsd.cli.files import CONF
from fmsd.errors import InputError
from fmsd.settings import check_yaml

log = logging.getLogger(__name__)

GROUPS = (
    "backbone",
    "data",
    "logger",
    "merger",
    "method",
    "optimizer",
    "schedule",
    "trainer",
    "wrapper",
)
"""The groups of the configuration that a run keeps."""

NEEDED = ("backbone", "data", "trainer")
"""Keys without which a configuration is not that of a run."""

TRAINER = frozenset(
    [
        *(
            "accelerator",
            "devices",
            "num_nodes",
            "strategy",
            "precision",
            "sync_batchnorm",
            "use_distributed_sampler",
        ),
        *(
            "max_epochs",
            "min_epochs",
            "max_steps",
            "min_steps",
            "max_time",
            "fast_dev_run",
            "overfit_batches",
        ),
        *(
            "limit_train_batches",
            "limit_val_batches",
            "limit_test_batches",
            "limit_predict_batches",
            "reload_dataloaders_every_n_epochs",
        ),
        *(
            "val_check_interval",
            "check_val_every_n_epoch",
            "num_sanity_val_steps",
            "log_every_n_steps",
        ),
        *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
        *(
            "deterministic",
            "benchmark",
            "inference_mode",
            "detect_anomaly",
            "enable_autolog_hparams",
        ),
        *("enable_checkpointing", "enable_model_summary", "enable_progress_bar"),
    ]
)
"""Arguments of Lightning's trainer that only set how it computes; others write files, load plugins or send something."""

DESTINATIONS: dict[str, Mapping[str, Callable[[Any], bool]]] = {
    "fmsd.tracking.wandb.build_wandb_logger": {
        "project": lambda _: True,
        "group": lambda _: True,
        "offline": lambda value: value is True,
    },
    "fmsd.tracking.mlflow.build_mlflow_logger": {"project": lambda _: True},
    "fmsd.tracking.tensorboard.build_tensorboard_logger": {},
}
"""Arguments of loggers, with the values, that send nothing elsewhere than the user's own settings say."""

Place = tuple[str | int, ...]


def load_run_config(path: Path, trust: object = ()) -> DictConfig:
    """The configuration of a run, checked before anything is built of it.

    Args:
        path: its `config.yaml`.
        trust: prefixes of what it may name beside the packaged targets, see `prefixes`.

    Raises:
        InputError: there is none, it is damaged, or `check_loaded` refuses it.
    """
    allowed = prefixes(trust)
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
    check_yaml(text, path)
    try:
        config = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(
            f"{path} is no configuration ({' '.join(str(error).split())})",
            "put it back, or remove it",
        ) from error
    if not isinstance(config, DictConfig):
        raise InputError(
            f"{path} is no configuration of a run (it holds no keys)", "put it back, or train anew"
        )
    if lacking := [key for key in NEEDED if key not in config]:
        raise InputError(
            f"{path} is no configuration of a run (it has no {lacking[0]})",
            "put it back, or train anew",
        )
    check_loaded(OmegaConf.to_container(config), path, allowed)
    return config


def prefixes(trust: object) -> tuple[str, ...]:
    """The prefixes of dotted names that an option `trust` lists.

    Raises:
        InputError: one of them does not end with a package.
    """
    listed = [trust] if isinstance(trust, str) else list(trust or ())  # pyright: ignore[reportArgumentType]
    for prefix in listed:
        if not (isinstance(prefix, str) and re.fullmatch(r"([^\W\d]\w*\.)+", prefix)):
            raise InputError(
                f"trust={prefix} is no package with its final dot", "give e.g. trust='[mypkg.]'"
            )
    return tuple(listed)


def check_loaded(settings: Any, source: Path, trust: Sequence[str] = ()) -> None:
    """Refuses loaded settings that hold anything but plain values and targets of the packaged files at their places.

    Nothing that is not trusted is imported or called.

    Args:
        settings: the whole configuration, or one with some of its groups.
        source: the file, for the message.

    Raises:
        InputError: a resolver, a key of Hydra's, a target or an argument that is not allowed there.
    """
    if wrong := [key for key in ("defaults", "hydra") if key in settings]:
        raise InputError(
            f"{source} has the key {wrong[0]}, which no run keeps",
            "take it out if you know this run",
        )
    check_shape(settings, source)
    for place, node in walk(settings):
        if isinstance(node, dict):
            check_node(place, node, source, trust)
        if not (node is None or isinstance(node, dict | list | str | int | float)):
            raise InputError(
                f"{source} has a {type(node).__name__} at {dotted(place)}", "write a plain value"
            )
        texts = node if isinstance(node, dict) else [node]
        if odd := [text for text in texts if isinstance(text, str) and "${" in text]:
            raise InputError(
                f"{source} would look something up: {odd[0]!r} at {dotted(place)}",
                "write the value in its place, as runs are written",
            )
    for place, node in walk(settings):  # now that all of it is plain
        if (
            isinstance(node, dict)
            and "_target_" in node
            and not node["_target_"].startswith(tuple(trust))
        ):
            loading = loader_keys() if place == ("data",) else ()
            arguments = {key: value for key, value in node.items() if key not in loading}
            check_values(arguments, dotted(place), source)


def check_shape(settings: Mapping[str, Any], source: Path) -> None:
    """Refuses loaded settings whose groups are not what is built of them.

    Raises:
        InputError: such a group.
    """
    parts = {
        group: settings[group]
        for group in GROUPS
        if settings.get(group) is not None and group != "logger"
    }
    logger, learner = settings.get("logger") or {}, settings.get("learner") or {}
    parts |= (
        {f"logger.{name}": node for name, node in logger.items()}
        if isinstance(logger, dict)
        else {"logger": logger}
    )
    if odd := [
        name for name, node in parts.items() if not (isinstance(node, dict) and "_target_" in node)
    ]:
        raise InputError(
            f"{source} is no configuration of a run ({odd[0]} has no _target_)",
            "put it back, or train anew",
        )
    known = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["learner"]
    if (
        odd := [key for key in learner if key not in known]
        if isinstance(learner, dict)
        else [learner]
    ):
        raise InputError(
            f"{source} sets learner.{odd[0]}, which training does not take", "take it out"
        )


def check_node(place: Place, node: Mapping[Any, Any], source: Path, trust: Sequence[str]) -> None:
    """Refuses a mapping of loaded settings that would build what its place does not build in the packaged files.

    Raises:
        InputError: it would.
    """
    where, special = (
        dotted(place),
        {key: value for key, value in node.items() if re.fullmatch(r"_\w+_", str(key))},
    )
    target = special.pop("_target_", None)
    if "_target_" in node and not (
        isinstance(target, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target)
    ):
        raise InputError(
            f"{source} has the _target_ {target!r} at {where}, which is no dotted name",
            "correct it",
        )
    if target is not None and target.startswith(tuple(trust)):
        check_home(target, source, trust)
        return
    known = shipped_targets().get(standard(place), {})
    if target is not None and target not in known:
        raise InputError(
            f"{source} would call {target} for {where}, which is code from elsewhere than the "
            "configuration files of fmsd",
            f"if you know that code and trust it, give trust='[{package(target)}.]'",
        )
    odd = [key for key in special if target is None or key != "_partial_"]
    if target is not None and node.get("_partial_") is not known[target]:
        odd.append(f"_partial_={node.get('_partial_')}")
    if odd:
        raise InputError(
            f"{source} has {odd[0]} at {where}, as no configuration file of fmsd has",
            "correct it if you know this run",
        )


def check_home(target: str, source: Path, trust: Sequence[str]) -> None:
    """Refuses a trusted name for something that another package defines, as `mypkg.os.system`; what cannot be imported is left to who builds it.

    Raises:
        InputError: such a name.
    """
    try:
        home = getattr(get_object(target), "__module__", None) or "nowhere"
    except Exception:  # a module of the user's raises anything
        return
    if not f"{home}.".startswith(tuple(trust)):
        raise InputError(
            f"{source} would call {target}, which is defined in {home}",
            f"if you know that code and trust it, give trust='[{home}.]' as well",
        )


def check_values(node: Mapping[str, Any], where: str, source: Path) -> None:
    """Refuses arguments that a packaged target does not take, or that let it do more than compute.

    Raises:
        InputError: such arguments.
    """
    target, arguments = (
        node["_target_"],
        {str(key): value for key, value in node.items() if key not in ("_target_", "_partial_")},
    )
    try:
        inspect.signature(get_object(target)).bind_partial(**arguments)
    except TypeError as error:
        raise InputError(
            f"{source} does not fit {target} at {where} ({' '.join(str(error).split())})",
            "correct these keys",
        ) from error
    if odd := [
        name
        for name, value in arguments.items()
        if value is not None and not harmless(target, name, value)
    ]:
        raise InputError(
            f"{source} sets {where}.{odd[0]}, which could do more than compute",
            f"take it out, or give trust='[{target.rpartition('.')[0]}.]' if the run is your own",
        )


def harmless(target: str, name: str, value: Any) -> bool:
    """Whether an argument of a packaged target only sets how it computes. Where loggers send something is looked at where they are used."""
    if target == "lightning.pytorch.Trainer":
        return name in TRAINER
    if target == "fmsd.engine.distributed.UnwrappedDDPStrategy":
        return name == "process_group_backend"
    if (
        target == "fmsd.models.detector.detector"
    ):  # others go to timm, which loads and unpickles what some of them name
        import timm
        from timm.models import build_model_with_cfg

        own = inspect.signature(get_object(target)).parameters
        loading = {
            *inspect.signature(timm.create_model).parameters,
            *inspect.signature(build_model_with_cfg).parameters,
            "pruned",
        }
        return name in own or (
            name not in loading and not name.startswith("feature") and plain(value)
        )
    return True


def plain(value: Any) -> bool:
    """Whether a value is a number or a text, or a list of them."""
    return (
        all(map(plain, value)) if isinstance(value, list) else isinstance(value, str | int | float)
    )


def destinations(loggers: Mapping[str, Any] | None, trust: object = ()) -> dict[str, str]:
    """Where the loggers of a loaded run would send results that the user's own settings do not: setting and value, by the logger's name."""
    found, allowed = {}, prefixes(trust)
    for name, node in (loggers or {}).items():
        if not node["_target_"].startswith(allowed):
            quiet = DESTINATIONS.get(node["_target_"], {})
            odd = [
                key
                for key, value in node.items()
                if key[0] != "_" and value is not None and not (key in quiet and quiet[key](value))
            ]
            found |= {name: f"logger.{name}.{odd[0]}={node[odd[0]]}"} if odd else {}
    return found


def wandb_settings(folder: Path) -> Path | None:
    """The settings in a run's folder that Weights & Biases would read, as it does in the working directory; None where there are none."""
    here = Path.cwd()
    places = (
        [here / name / "settings" for name in ("wandb", ".wandb")]
        if here.is_relative_to(folder.resolve())
        else []
    )
    return next((place for place in places if place.exists()), None)


def used_loggers(
    loggers: Mapping[str, Any] | None, trust: object = (), folder: Path | None = None
) -> dict[str, Any]:
    """The loggers of a loaded run but those that would send results elsewhere than the user's own settings say, which are named."""
    elsewhere = destinations(loggers, trust)
    if folder is not None and (settings := wandb_settings(folder)) is not None:
        elsewhere |= {
            name: str(settings)
            for name, node in (loggers or {}).items()
            if node["_target_"] == "fmsd.tracking.wandb.build_wandb_logger"
        }
    for name, setting in elsewhere.items():
        told = (name, setting, trust_in((loggers or {})[name]))
        log.warning(
            "The run's logger %s is not used, for the run says where it sends results (%s); if "
            "they shall go there, give %s.",
            *told,
        )
    return {name: node for name, node in (loggers or {}).items() if name not in elsewhere}


def trust_in(node: Mapping[str, Any]) -> str:
    """The option that trusts the target of a node."""
    return f"trust='[{node['_target_'].rpartition('.')[0]}.]'"


@functools.cache
def shipped_targets() -> dict[Place, dict[str, bool | None]]:
    """The targets of the packaged configuration files by their place, each with the `_partial_` beside it."""
    found: dict[Place, dict[str, bool | None]] = {}
    for path in sorted([*CONF.glob("*.yaml"), *CONF.glob("*/*.yaml")]):
        text = path.read_text(encoding="utf-8")
        header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        name = header[1] if header else ".".join(path.parent.relative_to(CONF).parts)
        root: Place = () if name in ("_global_", "") else tuple(name.split("."))
        for place, node in walk(yaml.safe_load(text), root):
            if isinstance(node, dict) and "_target_" in node and place and place[0] in GROUPS:
                found.setdefault(standard(place), {})[node["_target_"]] = node.get("_partial_")
    return found


def walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in nested mappings and lists with its place, from the outside in."""
    yield place, node
    children = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in children:
        yield from walk(child, (*place, key))


def standard(place: Place) -> Place:
    """A place in the packaged files that a place of a run is like: sources of other datasets are written where the data's own is."""
    return (
        ("data", "source", *place[3:])
        if place[:2] == ("data", "others") and len(place) > 2
        else place
    )


def dotted(place: Place) -> str:
    """A place as it is written on the command line."""
    return ".".join(map(str, place)) or "its beginning"


def package(target: str) -> str:
    """What trust in a target is given to: the package it is in, or the module where that is this package."""
    top = target.partition(".")[0]
    return target.rpartition(".")[0] if top == "fmsd" else top
