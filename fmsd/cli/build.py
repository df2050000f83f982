"""Builds objects from a configuration.

The targets that a loaded configuration may name are checked before, by `fmsd.cli.trust`.
"""

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.cli.files import CONF
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
                f"The _target_ {node['_target_']!r} cannot be imported "
                f"({' '.join(str(error).split())})",
                "correct it; a module of your own is found where it is installed or its folder is "
                "in PYTHONPATH",
            ) from error
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        check_targets(child)


def check_types(node: object, path: str) -> None:
    """Refuses values of another type than this package's functions take, see `check_arguments_of`.

    Args:
        path: the node's key.

    Raises:
        InputError: such a value; its key is named.
    """
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith("fmsd."):
        check_arguments_of(get_object(node["_target_"]), node, path)
    for key, child in (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    ):
        check_types(child, f"{path}.{key}")


def check_arguments_of(target: Callable[..., Any], values: Mapping[Any, Any], path: str) -> None:
    """Refuses values that are no number, whole number or boolean where a target wants one.

    Raises:
        InputError: such a value; `path` is the key that they lie below.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for name, value in values.items():
        plain = _plain(hints.get(str(name), Any))
        if plain and not any(
            value is None
            if one is None
            else value == one
            if isinstance(one, str)
            else _is(value, one)
            for one in plain
        ):
            what = (
                "no number"
                if float in plain
                else "no whole number"
                if int in plain
                else "neither true nor false"
            )
            example = 1 if {float, int} & set(plain) else "true"
            shown = str(value).lower() if isinstance(value, bool) else value
            raise InputError(
                f"{path}.{name}={shown} is {what}",
                f"give e.g. {path}.{name}={example}{', or null' if None in plain else ''}",
            )


def _plain(annotation: Any) -> list[Any]:
    """The numeric and boolean types, literals and None that an annotation consists of.

    Empty where it has other types, or no number and no bool.
    """
    parts = (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    found: list[Any] = []
    for part in parts:
        if get_origin(part) is Literal:
            found += get_args(part)
        elif part in (int, float, bool):
            found.append(part)
        elif part is types.NoneType:
            found.append(None)
        else:
            return []
    return found if {int, float, bool} & {one for one in found if isinstance(one, type)} else []


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a kind: true is no number, and a whole number is one."""
    return type(value) is kind or (kind is float and type(value) is int)


@functools.cache
def loader_keys() -> tuple[str, ...]:
    """The keys of `data` that configure its loaders; all others configure its selection."""
    return tuple(yaml.safe_load((CONF / "loader" / "default.yaml").read_text(encoding="utf-8")))


def build_selection(data: DictConfig) -> Any:
    """Builds the selection of frames that `data` configures; keys of loaders are left out.

    Raises:
        InputError: as `build`.
    """
    selection = copy.deepcopy(data)  # with the same parent, which interpolations look into
    with open_dict(selection):
        for key in loader_keys():
            selection.pop(key, None)
    return build(selection)


def data_factory(data: DictConfig) -> Callable[..., Any]:
    """The factory of the data module that `data` configures: its selection, and its loaders.

    Raises:
        InputError: as `build`.
    """
    from fmsd.engine.datamodule import DataModule  # imports Lightning

    selection = build_selection(data)
    settings: Any = OmegaConf.to_container(data, resolve=True)
    loader = {key: settings[key] for key in loader_keys() if key in settings}
    check_arguments_of(DataModule, loader, "data")
    return functools.partial(DataModule, selection, **loader)


def build_data(data: DictConfig) -> Any:
    """Builds the data module that `data` configures.

    Raises:
        InputError: as `build`, or a setting of the loaders is out of range.
    """
    return data_factory(data)()


def build(node: Any) -> Any:
    """Instantiates a part of the configuration.

    Raises:
        InputError: a target that cannot be imported, or arguments that do not fit it.
    """
    plain, path = OmegaConf.to_container(node, resolve=True), node._get_full_key("")
    check_targets(plain)
    check_types(plain, path)
    try:
        made = instantiate(node, _convert_="all")
        check_arguments(made, path)
    except (InstantiationException, ValueError, TypeError) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(
            f"The configuration of {node.get('_target_')} does not fit it "
            f"({' '.join(str(error).split()).rstrip('.')})",
            "correct these keys",
        ) from error
    return made


def check_arguments(made: object, path: str) -> None:
    """Checks the arguments of a factory, or of the factories among an object's attributes.

    Raises:
        TypeError, ValueError: a function does not take them.
        InputError: it is the factory itself; `path` is its key.
    """
    if isinstance(made, functools.partial):
        check_partial(made, path)
    for value in (
        vars(made).values()
        if hasattr(made, "__dict__") and not isinstance(made, functools.partial)
        else ()
    ):
        for factory in value.values() if isinstance(value, dict) else (value,):
            if isinstance(factory, functools.partial):
                inspect.signature(factory)


def check_partial(factory: functools.partial[Any], path: str) -> None:
    """Raises ValueError when a factory was given arguments that its function does not take.

    Raises:
        InputError: they can be named; some may come of another file than the one that names the
            function.
    """
    try:
        inspect.signature(factory)
    except ValueError as error:
        known = inspect.signature(factory.func).parameters
        if surplus := [name for name in factory.keywords if name not in known]:
            keys = [f"{path}.{name}" for name in surplus]
            raise InputError(
                f"{', '.join(keys)}: {factory.func.__module__}.{factory.func.__qualname__} takes "
                "no such argument",
                "leave it out, or where a file sets it add "
                + " ".join(f"'~{key}'" for key in keys),
            ) from error
        raise


def loggers(nodes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The factories of loggers by name."""
    return {name: build(node) for name, node in (nodes or {}).items()}
