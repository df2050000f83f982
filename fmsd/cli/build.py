"""Objects from a configuration: what a `_target_` may name, and whether its arguments fit."""

import functools
import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from fmsd.errors import InputError

ALLOWED = ("fmsd.", "torch.optim.", "torch.nn.", "timm.", "lightning.pytorch.", "albumentations.", "torchmetrics.")
"""Prefixes of what a `_target_` may name: a config file must not be able to call anything else."""


def check_targets(node: object) -> None:
    """Refuses a configuration that would call something defined outside the allowed packages, by whatever name.

    Raises:
        InputError: such a `_target_`, or one that does not exist.
    """
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        if not (isinstance(target, str) and target.startswith(ALLOWED)):
            raise InputError(f"The _target_ {target!r} is not allowed", f"targets must start with one of {', '.join(ALLOWED)}")
        try:
            home = f"{getattr(get_object(target), '__module__', '')}."
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"The _target_ {target!r} does not exist ({' '.join(str(error).split())})", "correct it") from error
        if not home.startswith(ALLOWED):
            raise InputError(
                f"The _target_ {target!r} is not allowed: it is defined in {home.rstrip('.')}", f"name something of {', '.join(ALLOWED)}"
            )
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(child)


def build(node: Any) -> Any:
    """Instantiates a part of the configuration.

    Raises:
        InputError: a forbidden target, or arguments that do not fit the target.
    """
    check_targets(OmegaConf.to_container(node, resolve=True))
    try:
        made = instantiate(node, _convert_="all")
        check_arguments(made)
    except (InstantiationException, ValueError, TypeError) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(
            f"The configuration of {node.get('_target_')} does not fit it ({' '.join(str(error).split()).rstrip('.')})", "correct these keys"
        ) from error
    return made


def check_arguments(made: object) -> None:
    """Raises TypeError or ValueError when a factory, or one among an object's attributes, was given arguments that its function does not take."""
    if isinstance(made, functools.partial):
        inspect.signature(made)
    for value in vars(made).values() if hasattr(made, "__dict__") and not isinstance(made, functools.partial) else ():
        for factory in value.values() if isinstance(value, dict) else (value,):
            if isinstance(factory, functools.partial):
                inspect.signature(factory)


def loggers(node: Any) -> dict[str, Any]:
    """The factories of loggers by name; in the configuration of an older version there is one without a name."""
    nodes = {"logger": node} if node and "_target_" in node else node or {}
    return {name: build(own) for name, own in nodes.items()}
