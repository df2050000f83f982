"""The options of Hydra, as `fmsd` takes them: anywhere on the command line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fmsd.errors import InputError

MODE = "hydra.mode"
"""Key that makes a command a sweep with `MULTIRUN`."""


class Option(NamedTuple):
    """An option of Hydra.

    Args:
        name: the long name.
        short: the short one; empty if there is none.
        value: what follows it, `FOLDER` or the names that may; empty if nothing does.
        default: the value if none follows; empty if one must.
        does: what Hydra does then: one `job`, a `sweep`, or `print` instead of running the verb;
            empty if the option has no say in that.
    """

    name: str
    short: str = ""
    value: str = ""
    default: str = ""
    does: str = ""

    @property
    def names(self) -> list[str]:
        """The values that it accepts; empty if it accepts any, or none."""
        return self.value.split("|") if "|" in self.value else []


INFO = "all|config|defaults|defaults-tree|plugins|searchpath"
"""What `--info` prints about Hydra."""

HYDRA_OPTIONS = (
    Option("--run", "-r", does="job"),
    Option("--multirun", "-m", does="sweep"),
    Option("--cfg", "-c", value="job|hydra|all", does="print"),
    Option("--info", "-i", value=INFO, default="all", does="print"),
    Option("--hydra-help", does="print"),
    Option("--shell-completion", "-sc", does="print"),
    Option("--resolve"),
    Option("--package", "-p", value="NAME"),
    Option("--config-dir", "-cd", value="FOLDER"),
    Option("--config-path", "-cp", value="FOLDER"),
    Option("--config-name", "-cn", value="NAME"),
    Option("--experimental-rerun", value="FILE"),
)

OPTIONS: Mapping[str, Option] = {
    name: option for option in HYDRA_OPTIONS for name in (option.name, option.short) if name
}
"""Hydra's options by each of their names."""


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options, each as one word `NAME` or `NAME=VALUE`, and all other arguments.

    Raises:
        InputError: a value is missing, wrong or too much, or the options exclude each other.
    """
    options: list[str] = []
    others: list[str] = []
    rest = [*arguments]
    while rest:
        name, sign, value = rest.pop(0).partition("=")
        option = OPTIONS.get(name)
        if option is None:
            others.append(f"{name}{sign}{value}")
            continue
        follows = rest and not rest[0].startswith("-") and not sign and option.value
        if follows and (not option.default or rest[0] in option.names):
            value = rest.pop(0)
        value = value or option.default
        if sign and not option.value:
            raise InputError(f"{name} has no value", f"leave {sign}{value} out")
        if option.value and not value:
            raise InputError(f"{name} lacks its value", f"give {name}={option.value}")
        if option.names and value not in option.names:
            raise InputError(
                f"There is no {name}={value}", f"choose one of {', '.join(option.names)}"
            )
        options.append(f"{name}={value}" if value else name)
    doing = {OPTIONS[name].name: name for name in option_names(options) if OPTIONS[name].does}
    if len(doing) > 1:
        raise InputError(f"{' and '.join(doing.values())} exclude each other", "give one of them")
    return options, others


def option_names(options: Sequence[str]) -> list[str]:
    """The names of options that `split_options` returned."""
    return [option.partition("=")[0] for option in options]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command goes through several values: `-m`, or `hydra.mode=MULTIRUN`.

    Raises:
        InputError: see `split_options`.
    """
    options, others = split_options(arguments)
    modes = [value for key, _, value in (word.partition("=") for word in others) if key == MODE]
    swept = any(OPTIONS[name].does == "sweep" for name in option_names(options))
    return swept or modes[-1:] == ["MULTIRUN"]


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """The folders of `--config-dir`.

    Raises:
        InputError: see `split_options`.
    """
    options = (option.partition("=") for option in split_options(arguments)[0])
    return [
        Path(os.path.expanduser(folder))  # noqa: PTH111  leaves unknown users alone
        for name, _, folder in options
        if OPTIONS[name].name == "--config-dir"
    ]
