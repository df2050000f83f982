"""Checks of the kinds of values that overrides set: a path, a list, a number, keys."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig

from fmsd.cli.conf_files import read_conf_file
from fmsd.cli.overrides import PATHS
from fmsd.errors import InputError
from fmsd.package_files import CONF

KEYED = ("data.source", "data.roots", "data.others")
"""Settings of keys that null cannot replace."""

SEVERAL = ("data.source.file", "severities", "trainer.devices")
"""Keys that hold one value or a list of them."""


def override_text(value: object) -> object:
    """A value as overrides spell it: true, false, null."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else value


def check_kinds(verb: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Rejects values of another kind than the configuration files have at their keys.

    Numbers in place of bools, and texts in place of numbers, are left to other checks.

    Args:
        values: of overrides, by dotted key.
        defaults: of the packaged configuration files, by dotted key.

    Raises:
        InputError: a path that is none, a missing value, or a value in place of a list, a number or
            keys.
    """
    needed = [
        key
        for key, value in read_conf_file(CONF / f"{verb}.yaml").values.items()
        if value == "???" or (isinstance(value, str) and PATHS.fullmatch(key))
    ]
    for key, value in values.items():
        if value is None and key in needed:
            raise InputError(f"fmsd {verb} needs {key}, which cannot be null", "give a value")
        if PATHS.fullmatch(key) and key not in SEVERAL and not isinstance(value, str | None):
            raise InputError(f"{key}={value} is no path", f"give {key}=PATH")
        if (fault := fault_of_kind(key, value, defaults.get(key))) is not None:
            raise InputError(f"{key}={override_text(value)} is {fault[0]}", fault[1])


def fault_of_kind(key: str, value: Any, default: Any) -> tuple[str, str] | None:
    """What a value is not, and the remedy; None if its kind is that of the default.

    Args:
        default: the value in the configuration files; None is of any kind.
    """
    if isinstance(default, list) and "." not in key and isinstance(value, int | float | None):
        single = key in SEVERAL and value is not None
        return None if single else ("no list", f"give {key}='[NAME,NAME]', or [] for none")
    keyed = isinstance(default, dict) and not default and not isinstance(value, DictConfig)
    if keyed or (key in KEYED and value is None):
        return "no setting: it has keys with values of their own", f"give e.g. {key}.NAME=VALUE"
    several = isinstance(value, DictConfig | ListConfig) and key not in SEVERAL
    if isinstance(default, bool) and several:
        return "neither true nor false", f"give e.g. {key}={str(default).lower()}"
    if isinstance(default, int | float) and several:
        return "no number", f"give e.g. {key}={default}"
    return None
