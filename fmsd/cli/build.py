"""Builds objects from a configuration; `fmsd.cli.trust` checks one that was loaded before."""

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from fmsd.checks import check_range
from fmsd.cli.conf_files import dotted_key, walk
from fmsd.cli.hydra_compat import dotted_key_of
from fmsd.cli.override_kinds import override_text
from fmsd.data.name_overrides import as_name, as_names
from fmsd.errors import InputError

LOADER_KEYS = (
    "size", "augment", "strong", "batches", "buffer", "domains", "batch_size", "workers", "seed",
)  # fmt: skip
"""The keys of `data` that configure its loaders, from `conf/loader`."""


def check_targets(config: object) -> None:
    """Rejects a configuration with a `_target_` that cannot be imported."""
    for _, node in walk(config):
        if isinstance(node, dict) and "_target_" in node:
            try:
                get_object(node["_target_"])
            except (ImportError, AttributeError, ValueError, TypeError) as error:
                raise InputError(
                    f"The _target_ {node['_target_']!r} cannot be imported "
                    f"({' '.join(str(error).split())})",
                    "correct it; a module of your own is found where it is installed or its folder "
                    "is in PYTHONPATH",
                ) from error


def check_types(config: object, path: str) -> None:
    """Rejects values of another kind than the functions of this package are annotated with.

    Args:
        path: the dotted key of `config`.
    """
    for key_path, node in walk(config, (path,)):
        if isinstance(node, dict) and str(node.get("_target_", "")).startswith("fmsd."):
            check_argument_types(get_object(node["_target_"]), node, dotted_key(key_path))


def check_argument_types(target: Callable[..., Any], values: Mapping[Any, Any], path: str) -> None:
    """Rejects values that do not fit the plain annotations of a function's parameters.

    Args:
        path: the dotted key that the values lie below; empty for the keys of a verb.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for name, value in values.items():
        kinds, key = _kinds(hint := hints.get(str(name), Any)), f"{path}.{name}".lstrip(".")
        if kinds and not _fits_any(value, kinds):
            fault, example = _expectation(kinds)
            raise InputError(
                f"{key}={override_text(value)} is {fault}",
                f"give e.g. {key}={example}{', or null' if None in kinds else ''}",
            )
        inner = _element_kinds(hint) if kinds and isinstance(value, list | tuple) else []
        if inner and (wrong := [each for each in value if not _fits_any(each, inner)]):
            raise InputError(
                f"{key} has the element {override_text(wrong[0])}, which is "
                f"{_expectation(inner)[0]}",
                "correct it",
            )


PLAIN = (int, float, bool, str)
"""The kinds of values that are compared by their type."""

KINDS: Mapping[Any, Any] = {
    Path: str, Sequence: list, list: list, tuple: list, Mapping: dict, dict: dict,
}  # fmt: skip
"""By class of an annotation, the kind of value that YAML and the command line have for it."""

EXAMPLES = {
    list: ("no list", "'[A,B]'"),
    float: ("no number", "1"),
    int: ("no whole number", "1"),
    bool: ("neither true nor false", "true"),
    dict: ("no mapping", "'{A: B}'"),
    str: ("no text", "TEXT"),
}
"""By kind, why a value is not of it, and a valid example.

The first kind that an annotation allows counts.
"""


def _kinds(annotation: Any) -> list[Any]:
    """The kinds, literal texts and None that an annotation allows.

    Empty if it allows anything else, or literal texts alone.
    """
    parts = (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    kinds: list[Any] = []
    for part in parts:
        origin = get_origin(part) or part
        if origin is Literal:
            kinds += get_args(part)
        elif origin in PLAIN or origin in KINDS:
            kinds.append(KINDS.get(origin, origin))
        elif part is types.NoneType:
            kinds.append(None)
        else:
            return []
    return kinds if any(isinstance(kind, type) for kind in kinds) else []


def _element_kinds(annotation: Any) -> list[Any]:
    """The kinds of the elements of a list that an annotation allows; empty for any."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    lists = [part for part in (annotation, *parts) if KINDS.get(get_origin(part)) is list]
    inner = [each for part in lists for each in get_args(part) if each is not Ellipsis]
    kinds = [_kinds(each) for each in inner]
    return [kind for each in kinds for kind in each] if all(kinds) else []


def _expectation(kinds: Sequence[Any]) -> tuple[str, str]:
    """Why a value fits none of the kinds, as "no number", and a valid example."""
    return next(EXAMPLES[kind] for kind in EXAMPLES if kind in kinds)


def _fits_any(value: object, kinds: Sequence[Any]) -> bool:
    return any(_fits(value, kind) for kind in kinds)


def _fits(value: object, kind: object) -> bool:
    """Whether a value is of a kind, or equals a text or None; an int is a float, a bool is not."""
    if kind is None:
        return value is None
    if isinstance(kind, str):
        return value == kind
    if kind in (list, dict):
        return isinstance(value, (list, tuple) if kind is list else Mapping)
    return type(value) is kind or (kind is float and type(value) is int)


def build(node: Any) -> Any:
    """Instantiates a part of the configuration.

    Raises:
        InputError: a target cannot be imported, or its arguments do not fit it.
    """
    plain, path = OmegaConf.to_container(node, resolve=True), dotted_key_of(node)
    check_targets(plain)
    check_types(plain, path)
    try:
        built = instantiate(node, _convert_="all")
        check_factories(built, path)
    except (InstantiationException, ValueError, TypeError) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(
            f"The configuration of {node.get('_target_')} does not fit it "
            f"({' '.join(str(error).split()).rstrip('.')})",
            "correct these keys",
        ) from error
    return built


def build_selection(data: DictConfig) -> Any:
    """Builds the selection of frames that `data` configures, without the keys of the loaders."""
    # A deep copy keeps the parent, which interpolations look into; OmegaConf.masked_copy drops it
    selection = copy.deepcopy(data)
    with open_dict(selection):
        for key in LOADER_KEYS:
            selection.pop(key, None)
        spell_names(selection)
    return build(selection)


def spell_names(selection: DictConfig) -> None:
    """Makes every name in the configuration of a selection text; the command line reads `0` as 0.

    A single name in place of a list becomes a list.

    Raises:
        InputError: a value whose spelling is lost, such as 1.0, true or null.
    """
    spelling = {"name": as_name, "train": as_names, "test": as_names}
    optional = {"compression": as_name, "left_out": as_name}
    optional |= {"forgeries": as_names, "train_forgeries": as_names}
    spelling |= {key: spell for key, spell in optional.items() if selection.get(key) is not None}
    for key, spell in spelling.items():
        if key in selection:
            selection[key] = spell(selection[key], f"data.{key}")
    for key in ("others", "roots"):
        for name in [name for name in selection.get(key) or () if not isinstance(name, str)]:
            selection[key][as_name(name, f"data.{key}")] = selection[key].pop(name)


def data_factory(data: DictConfig) -> Callable[..., Any]:
    """The factory of the data module that `data` configures: its selection, and its loaders."""
    from fmsd.engine.datamodule import DataModule  # imports Lightning

    selection = build_selection(data)
    settings: Any = OmegaConf.to_container(data, resolve=True)
    loader = {key: settings[key] for key in LOADER_KEYS if key in settings}
    check_argument_types(DataModule, loader, "data")
    check_range("data.workers", loader.get("workers"), null="one per core, at most 8")
    return functools.partial(DataModule, selection, **loader)


def build_data(data: DictConfig) -> Any:
    """Builds the data module that `data` configures."""
    return data_factory(data)()


def check_factories(built: object, path: str) -> None:
    """Rejects a factory, or an object with one, whose arguments its function does not take.

    Args:
        path: the dotted key it was built from.

    Raises:
        InputError: it is a factory with such arguments.
        ValueError: an attribute of it is a factory with such arguments.
    """
    if isinstance(built, functools.partial):
        check_factory(built, path)
    elif hasattr(built, "__dict__"):
        for value in vars(built).values():
            for factory in value.values() if isinstance(value, dict) else (value,):
                if isinstance(factory, functools.partial):
                    inspect.signature(factory)


def check_factory(factory: functools.partial[Any], path: str) -> None:
    """Rejects a factory with arguments that its function does not take.

    Raises:
        InputError: surplus keyword arguments, which another file than the function's may have set.
        ValueError: surplus positional arguments.
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


def logger_factories(nodes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The logger factories by name.

    Raises:
        InputError: a logger is no part of a configuration, or see `build`.
    """
    nodes = nodes or {}
    if strange := [name for name, node in nodes.items() if not isinstance(node, Mapping)]:
        raise InputError(
            f"logger.{strange[0]}={override_text(nodes[strange[0]])} is no logger",
            "give logger=NAME",
        )
    return {name: build(node) for name, node in nodes.items()}
