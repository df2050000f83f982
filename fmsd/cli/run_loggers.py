"""Loggers of a loaded run: those that would send results to a place the run sets are not used."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmsd.cli.recorded_config import LOOKUP
from fmsd.cli.trust import trusted_prefixes
from fmsd.redaction import REDACTED

log = logging.getLogger(__name__)

DESTINATIONS: dict[str, Mapping[str, Callable[[Any], bool]]] = {
    "fmsd.tracking.wandb.build_wandb_logger": {
        "project": lambda _: True,
        "group": lambda _: True,
        "offline": lambda value: value is True,
    },
    "fmsd.tracking.mlflow.build_mlflow_logger": {"project": lambda _: True},
    "fmsd.tracking.tensorboard.build_tensorboard_logger": {},
}
"""Arguments of loggers, and their values, that leave the destination to the user's settings."""


def foreign_destinations(
    loggers: Mapping[str, Any] | None, trust: object = (), given: Collection[str] = ()
) -> dict[str, str]:
    """By logger, the setting of a loaded run that changes where its results are sent.

    Args:
        loggers: the configuration of each logger.
        trust: see `fmsd.cli.trust`; trusted loggers may send results anywhere.
        given: dotted keys that the command line sets, which are the user's own.
    """
    destinations: dict[str, str] = {}
    allowed = trusted_prefixes(trust)
    plain: Any = loggers or {}
    if isinstance(loggers, DictConfig):
        plain = OmegaConf.to_container(loggers)  # nothing is looked up
    for name, node in plain.items():
        if not node["_target_"].startswith(allowed):
            harmless = DESTINATIONS.get(node["_target_"], {})
            changed = [
                key
                for key, value in node.items()
                if key[0] != "_"
                and value is not None
                and f"logger.{name}.{key}" not in given
                and not (key in harmless and harmless[key](value) and LOOKUP not in str(value))
            ]
            if changed:
                destinations[name] = f"logger.{name}.{changed[0]}={node[changed[0]]}"
    return destinations


def wandb_settings_in(folder: Path) -> Path | None:
    """The settings of Weights & Biases in the working directory if that lies in a run's folder."""
    here = Path.cwd()
    candidates = (
        [here / name / "settings" for name in ("wandb", ".wandb")]
        if here.is_relative_to(folder.resolve())
        else []
    )
    return next((path for path in candidates if path.exists()), None)


def trusted_loggers(
    loggers: Mapping[str, Any] | None,
    trust: object = (),
    folder: Path | None = None,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """The loggers of a loaded run, without those that set where results go; these are logged.

    Args:
        loggers: the configuration of each logger.
        trust: see `fmsd.cli.trust`.
        folder: the run's; settings of Weights & Biases inside it are not trusted either.
        given: dotted keys that the command line sets.
    """
    destinations = foreign_destinations(loggers, trust, given)
    if folder is not None and (settings := wandb_settings_in(folder)) is not None:
        destinations |= {
            name: str(settings)
            for name, node in (loggers or {}).items()
            if node["_target_"] == "fmsd.tracking.wandb.build_wandb_logger"
        }
    for name, setting in destinations.items():
        log.warning(
            "The run's logger %s is not used, for the run sets where it sends results (%s); if "
            "they shall go there, give %s.",
            name,
            setting,
            trust_option((loggers or {})[name], setting),
        )
    return {name: node for name, node in (loggers or {}).items() if name not in destinations}


def trust_option(node: Mapping[str, Any], setting: str) -> str:
    """The override that lets a logger send results where the run's setting says.

    Args:
        node: the configuration of the logger.
        setting: as `foreign_destinations` names it.
    """
    if REDACTED in setting:
        return f"the whole value again, {setting.partition('=')[0]}=VALUE"
    return f"trust='[{node['_target_'].rpartition('.')[0]}.]'"
