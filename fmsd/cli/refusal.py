"""Hydra's and OmegaConf's errors as one sentence with a remedy."""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from fmsd.cli.files import CONF
from fmsd.cli.help import bases, choices, groups
from fmsd.cli.overrides import PATHS, suggestions
from fmsd.errors import InputError
from fmsd.quoting import quote

LAUNCHERS = {
    "hydra/launcher/submitit": ("SLURM needs the package hydra-submitit-launcher", "slurm"),
    "hydra/launcher/joblib": ("This launcher needs the package hydra-joblib-launcher", "joblib"),
    "hydra/launcher/ray": ("This launcher needs the package hydra-ray-launcher", "ray"),
    "hydra/sweeper/optuna": ("This sweeper needs the package hydra-optuna-sweeper", "optuna"),
}
"""What the configuration of a plugin begins with that is not installed, the message, and the extra that installs it."""

UNREADABLE = (HydraException, yaml.YAMLError)
"""Errors of configuration files, besides OmegaConf's."""


def unwrapped(error: InputError) -> InputError:
    """An input error as a loader process raised it; torch hands it on with that process's traceback as its only text."""
    text = error.message.rpartition("InputError: ")[2]
    return error if text == error.message else type(error)(text.strip().removesuffix("."))


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from; OmegaConf's errors of resolvers have that as their context."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def translate_hydra_error(error: Exception, verb: str, overrides: Sequence[str]) -> InputError:  # noqa: PLR0911  one for each kind
    """An error of Hydra or OmegaConf as an input error; an input error among its causes is returned as it is.

    Args:
        overrides: the words of the command line.
    """
    text = " ".join(str(error if str(error) else error.__cause__).split())
    for cause in causes(error):
        if isinstance(cause, InputError):
            return unwrapped(cause)
        if isinstance(cause, OverrideParseException):
            return _unreadable_override(cause.override, verb)
        if isinstance(cause, MissingConfigException):
            return _missing_file(cause, text)
        if isinstance(cause, MissingMandatoryValue) and cause.full_key:
            return _missing_value(str(cause.full_key), verb)
        if (
            isinstance(cause, (ConfigAttributeError, ConfigKeyError))
            and cause.full_key
            and isinstance(error, ConfigCompositionException)
        ):
            return _unknown_key(str(cause.full_key), verb, overrides)
        if isinstance(cause, yaml.MarkedYAMLError):
            return InputError(
                f"A configuration file is no YAML: {' '.join(str(cause).split())}",
                "correct that line",
            )
    if swept := _several(overrides):
        key, _, values = swept.partition("=")
        if key in groups(verb):
            return InputError(
                f"{swept} are several choices", f"give each a job of its own with -m {swept}"
            )
        listed = (
            f"give them as a list, {key}={shlex.quote(f'[{values}]')}, or each to a job of "
            "its own with -m"
        )
        single = isinstance(defaults(verb, overrides, key).get(key), int | float)
        return InputError(
            f"{swept} are several values",
            f"give each to a job of its own with -m {swept}" if single else listed,
        )
    if match := re.search(r"You must specify '(\w+)'|Missing mandatory value: (\S+)", text):
        return _missing_value(match[1] or match[2], verb)
    if match := re.search(r"config group '([^']+)' does not exist", text):
        return _unknown_key(match[1], verb, overrides)
    if match := re.search(r"An item is already at '([^']+)'", text):
        return InputError(
            f"{match[1]} exists, so it cannot be added", f"leave the + out: {match[1]}=VALUE"
        )
    if match := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        return _unknown_key(match[1], verb, overrides)
    if "hydra.launcher.tasks_per_node" in text:
        return InputError(
            "hydra/launcher=slurm starts a task per device",
            "give their number with trainer.devices=NUMBER",
        )
    return InputError(
        f"The configuration cannot be composed: {text.rstrip('.')}",
        f"correct it; fmsd {verb} --help shows all keys",
    )


def _unreadable_override(override: str, verb: str) -> InputError:
    """For a word that is not of Hydra's grammar: how to quote it."""
    key, sign, value = override.partition("=")
    if not sign:
        return InputError(
            f"{override!r} is no override", f"write key=value; fmsd {verb} --help shows all keys"
        )
    word = (
        shlex.quote(f"{key}={quote(value)}")
        if re.search(r"['\"\\]", value)
        else f"'{key}=\"{value}\"'"
    )
    return InputError(
        f"{override} holds characters that have a meaning of their own", f"quote the value: {word}"
    )


def _missing_file(error: MissingConfigException, text: str) -> InputError:
    """For a configuration file that is not there: a choice of a group, or what another file names."""
    name = str(error.missing_cfg_file)
    for start, (message, extra) in LAUNCHERS.items():
        if name.startswith(start):
            return InputError(message, f"install it with: pip install 'fmsd[{extra}]'")
    group, _, choice = name.rpartition("/") if name.startswith("hydra/") else name.partition("/")
    if match := re.match(
        r"In '([^']+/[^']+)': Could not (?:load|find) '", text
    ):  # another file names it, not the command line
        return InputError(
            f"The configuration file {match[1]}.yaml names {name}, which does not exist",
            "correct its defaults list",
        )
    options = sorted(
        {option for option in error.options or () if not option.startswith("_")}.union(
            choices(group)
        )
    )
    folded = {
        option.casefold().replace("-", "").replace("_", "").replace("+", "p"): option
        for option in reversed(options)
    }
    spelt = choice.casefold().replace("-", "").replace("_", "").replace("+", "p")
    close = [folded[one] for one in difflib.get_close_matches(spelt, list(folded), n=1, cutoff=0.7)]
    meant = f" (did you mean {group}={close[0]}?)" if close else ""
    known = f"choose one of {', '.join(options)}" if options else f"there is none in {CONF / group}"
    return InputError(
        f"There is no {group}={choice}{meant}",
        f"{known}, or give your own folder of them with --config-dir=FOLDER",
    )


def _missing_value(key: str, verb: str) -> InputError:
    if options := groups(verb).get(key):
        return InputError(f"fmsd {verb} needs {key}", f"give {key}=NAME: {', '.join(options)}")
    return InputError(
        f"fmsd {verb} needs {key}",
        f"give it as {key}={'PATH' if PATHS.fullmatch(key) else 'VALUE'}",
    )


def _unknown_key(key: str, verb: str, overrides: Sequence[str]) -> InputError:
    if verb in ("evaluate", "explain", "merge") and key.startswith(("data.", "trainer.")):
        return InputError(
            f"There is no config key {key!r} unless {key.partition('.')[0]}=NAME is given, too",
            f"add that; fmsd {verb} --help shows all keys",
        )
    meant = suggestions(key, config_keys(verb, overrides, key), groups(verb))
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return InputError(f"There is no config key {key!r}{hint}", f"fmsd {verb} --help shows all keys")


def _several(overrides: Sequence[str]) -> str | None:
    """The first override with several values, where no sweep is asked for."""
    if any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in overrides):
        return None
    for word in overrides:
        try:
            if (
                "=" in word
                and not word.startswith("-")
                and OverridesParser.create().parse_override(word).is_sweep_override()
            ):
                return word
        except HydraException:
            continue
    return None


def config_keys(verb: str, overrides: Sequence[str], wrong: str) -> list[str]:
    """Every dotted key of a verb's configuration under the given choices of groups."""
    return list(defaults(verb, overrides, wrong))


def defaults(verb: str, overrides: Sequence[str], wrong: str) -> dict[str, Any]:
    """The value of every dotted key of a verb's configuration under the given choices of groups, of a sweep the first, and without other overrides.

    Args:
        wrong: a key whose overrides are left out.
    """
    known = groups(verb)
    words = [
        word
        for word in overrides
        if word.partition("=")[0].lstrip("+") in known and not word.startswith(f"{wrong}=")
    ]
    chosen = [word.partition(",")[0] for word in words]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for words in (
            chosen,
            [word for word in chosen if word.startswith("data=")],
            ["data=folder"],
        ):
            try:
                return dict(_dotted(OmegaConf.to_container(hydra.compose(verb, words)), ""))
            except UNREADABLE:
                continue
    return {}


def check_kinds(
    verb: str, overrides: Sequence[str], config: DictConfig, chosen: Mapping[str, Any]
) -> None:
    """Refuses words where the configuration files have numbers.

    Args:
        overrides: of one job.
        config: what they make of the configuration.
        chosen: the choice of each group.

    Raises:
        InputError: there is one.
    """
    keys = [word.partition("=")[0].lstrip("+") for word in overrides if "=" in word]
    words = {
        key: value
        for key in keys
        if key not in MIXED and isinstance(value := OmegaConf.select(config, key), str)
    }
    usual = written_values(verb, chosen) if keys else {}
    for key in keys:
        value = OmegaConf.select(config, key)
        whole = isinstance(value, DictConfig) or (value is None and "." in key)
        below = [name.removeprefix(f"{key}.") for name in usual if name.startswith(f"{key}.")]
        if below and not whole and key not in groups(verb):
            shown = (
                "null"
                if value is None
                else str(value).lower()
                if isinstance(value, bool)
                else value
            )
            raise InputError(
                f"{key}={shown} is no setting: {key} has {', '.join(below)}",
                f"give e.g. {key}.{below[0]}=VALUE",
            )
    for key, value in words.items():
        if isinstance(usual.get(key), int | float):
            what = "neither true nor false" if isinstance(usual[key], bool) else "no number"
            raise InputError(
                f"{key}={value} is {what}", f"give e.g. {key}={str(usual[key]).lower()}"
            )


MIXED = ("trainer.devices",)
"""Keys whose default is a number and that take a word, too."""


def written_values(verb: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every dotted key as the packaged files of a verb and of the choices of its groups write it."""
    found = dict(_dotted(yaml.safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8")), ""))
    for group, choice in chosen.items():
        file = CONF / group / f"{choice}.yaml"
        for part in bases(file) if file.is_file() else ():
            text = part.read_text(encoding="utf-8")
            values = _dotted(
                yaml.safe_load(text),
                "" if "# @package _global_" in text.splitlines() else f"{group}.",
            )
            found |= {
                key: value for key, value in values if not str(value).startswith(("${", "???"))
            }  # which say nothing of their kind
    return found


def _dotted(node: object, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}", value
            yield from _dotted(value, f"{prefix}{name}.")
