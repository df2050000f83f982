"""Objects from a configuration. What it may name is its reader's to decide: see `fmsd.cli.trust` for those that are loaded."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from fmsd.errors import InputError


def check_targets(node: object) -> None:
    """Refuses a configuration that names something which cannot be imported.

    Raises:
        InputError: such a `_target_`.
    """
    if isinstance(node, dict) and "_target_" in node:
        try:
            get_object(node["_target_"])
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise InputError(
                f"The _target_ {node['_target_']!r} cannot be imported ({' '.join(str(error).split())})",
                "correct it; a module of your own is found where it is installed or its folder is in PYTHONPATH",
            ) from error
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(child)


def build(node: Any) -> Any:
    """Instantiates a part of the configuration.

    Raises:
        InputError: a target that cannot be imported, or arguments that do not fit it.
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
        check_partial(made)
    for value in vars(made).values() if hasattr(made, "__dict__") and not isinstance(made, functools.partial) else ():
        for factory in value.values() if isinstance(value, dict) else (value,):
            if isinstance(factory, functools.partial):
                check_partial(factory)


def check_partial(factory: functools.partial[Any]) -> None:
    """Raises TypeError or ValueError when a factory was given arguments that its function does not take; they are named where they can be."""
    try:
        inspect.signature(factory)
    except ValueError as error:
        known = inspect.signature(factory.func).parameters
        if surplus := [name for name in factory.keywords if name not in known]:
            raise TypeError(f"it takes no {' and no '.join(surplus)}") from error
        raise


def loggers(nodes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The factories of loggers by name."""
    return {name: build(node) for name, node in (nodes or {}).items()}
