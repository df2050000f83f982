"""Reads the configuration files of fmsd and its plugins: values, groups and choices, defaults."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.plugins import choice_files, conf_folders

KeyPath = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class ConfFile(NamedTuple):
    """What a configuration file sets.

    Args:
        package: the keys that its values lie below; empty for the top level.
        values: its content as it is written, with its defaults list and interpolations.
    """

    package: KeyPath
    values: dict[str, Any]


def read_conf_file(file: Path, group: str | None = None) -> ConfFile:
    """Reads a configuration file; a `# @package NAME` in it sets where its values lie.

    Args:
        group: of the file whose defaults list names this one; by default this file's own.

    Raises:
        InputError: it is no YAML, or no mapping.
    """
    text = file.read_text(encoding="utf-8")
    if group is None:
        folder = next(folder for folder in conf_folders() if file.is_relative_to(folder))
        parts = file.parent.relative_to(folder).parts
        group = "/".join(parts[: 2 if parts[:1] == ("hydra",) else 1])
    header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    name = header[1].removeprefix("_global_") if header else group.replace("/", ".")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(
            f"The configuration file {file} is no YAML: {' '.join(str(error).split())}",
            "correct it, or install its package again",
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"The configuration file {file} has no keys", "correct it, or install its package again"
        )
    return ConfFile(tuple(name.split(".")) if name else (), values)


def choice_file(group: str, choice: str) -> Path:
    """The file of a choice; that of fmsd, which does not exist, if there is none."""
    name = f"{group}/{choice}.yaml"
    return next(
        (path for folder in conf_folders() if (path := folder / name).is_file()), CONF / name
    )


def walk(node: Any, key_path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yields a value and all that nested mappings and lists hold, each with its key path.

    Args:
        key_path: that of `node`.
    """
    yield key_path, node
    if isinstance(node, dict):
        children = node.items()
    else:
        children = enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from walk(child, (*key_path, key))


def dotted_key(key_path: KeyPath) -> str:
    """A key path as overrides and messages write it."""
    return ".".join(map(str, key_path)) or "the top level"


def dotted_values(node: Any, package: KeyPath = ()) -> dict[str, Any]:
    """By dotted key, every value of nested mappings, those that hold further keys included.

    Args:
        package: the keys that `node` lies below.
    """
    return {
        dotted_key(key_path): value
        for key_path, value in walk(node, package)
        if key_path != package and not any(isinstance(key, int) for key in key_path)
    }


def groups(verb: str) -> dict[str, list[str]]:
    """The groups of a verb's configuration, in order, each with its choices."""
    return {group: choices(group) for group in default_choices(verb)}


def default_choices(verb: str) -> dict[str, str]:
    """The groups in the defaults list of a verb's file, each with its choice."""
    return {
        group: "null" if choice is None else str(choice)
        for group, choice in _defaults(CONF / f"{verb}.yaml").items()
        if "@" not in group
    }


def left_out_groups(verb: str) -> set[str]:
    """The groups, nested in those of a verb, that it leaves out: `override loader@data: null`."""
    names = (name for name, choice in _defaults(CONF / f"{verb}.yaml").items() if choice is None)
    return {name.removeprefix("override ").partition("@")[0] for name in names if "@" in name}


def choices(group: str) -> list[str]:
    """The choices of a group, without files that only others build on (`_dataset`)."""
    return sorted(
        name
        for name in choice_files(group)
        if not any(part.startswith("_") for part in name.split("/"))
    )


def _defaults(file: Path) -> dict[str, str | None]:
    """The entries `GROUP: CHOICE` of a file's defaults list."""
    entries = read_conf_file(file).values.get("defaults", [])
    return {
        group: choice
        for entry in entries
        if isinstance(entry, dict)
        for group, choice in entry.items()
    }


def base_files(file: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """Yields the files that a file is based on by its defaults list, then the file itself.

    Args:
        left_out: nested groups whose files are skipped.
    """
    for entry in read_conf_file(file).values.get("defaults", []):
        if isinstance(entry, str):
            name = entry.partition("@")[0]
            base = file.parent / f"{name}.yaml"
            if not base.is_file():  # one of fmsd, of a plugin's file
                base = choice_file(file.parent.name, name)
            if base.is_file():
                yield from base_files(base, left_out)
        else:
            for name, choice in entry.items():
                group = name.removeprefix("/").partition("@")[0]
                if name.startswith("/") and group not in left_out:
                    yield choice_file(group, str(choice))
    yield file
